"""The code blocks of the documents, as a Markdown parser sees them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "notebooks/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)
RUN = {"sh", "python"}
PARSED = {"json", "yaml", "ini"}
PRINTED = {"text"}
SHOWN = {""}
DIRECTIVE = re.compile(r"\{[\w:-]+\}")  # directives of the documentation site
# What a test that follows a document may lack. The line before a block says so: *Needs Docker.*
NEEDED = {"a GPU", "a hub", "a stopped service", "Docker", "other machines", "the network"}
MARK = re.compile(r"\*Needs ([^*]+)\.\*")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is that of its first line of text; one that `answers` shows what the
    block before it prints.
    """

    document: str
    line: int
    language: str
    text: str
    needs: str | None = None
    answers: bool = False

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def by_hand(document: str) -> str:
    """The hand-written text of a file, without its generated part."""
    return (ROOT / document).read_text(encoding="utf-8").partition("; do not edit below -->")[0]


@cache
def blocks(document: str) -> Sequence[Block]:
    """All blocks of a file; its path is relative to the root."""
    return tuple(find((ROOT / document).read_text(encoding="utf-8"), document))


def find(text: str, document: str) -> Iterator[Block]:
    """All blocks of a text. Raises `ValueError` for a block that no test covers."""
    paragraph = ran = ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "heading_open":
            ran = ""
        elif token.type == "inline":
            paragraph = token.content
        elif token.type in {"fence", "code_block"}:
            line = (token.map or [0])[0] + 2
            language = "" if DIRECTIVE.match(token.info) else token.info.strip()
            block = _block(Block(document, line, language, token.content), paragraph, ran)
            if token.type == "code_block" or block.language not in RUN | PARSED | PRINTED | SHOWN:
                raise ValueError(f"{block}: no test looks at {token.info or 'indented code'}")
            if block.needs and block.language != "sh":
                raise ValueError(f"{block}: no test looks at {language} that is not run")
            if block.needs not in NEEDED | {None}:
                raise ValueError(f"{block}: no test knows what {block.needs} is")
            yield block
            paragraph = ""
            if block.language in RUN:
                ran = "" if block.needs else block.language


def _block(bare: Block, paragraph: str, ran: str) -> Block:
    """The block with its marker from the line before, and whether it shows output."""
    mark = MARK.search(paragraph)
    answers = bool(ran) and bare.language in {"json", *PRINTED} and not mark
    return replace(bare, needs=mark[1] if mark else None, answers=answers)
