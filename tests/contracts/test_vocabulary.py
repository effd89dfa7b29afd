"""Words that code and documents do not use; docs/glossary.md lists the terms that replace them."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
BANNED = (
    # names that only this project used
    *("tether", "keeper", "pulse", "trunk", "rivals?", "befalls?", "dearest", "judged", "ledger"),
    *("doors?", "graded"),
    # phrases that are not plain English
    *("whoever", "(?:is|are|was|were|been|be|what it|as) told", "told apart", "so many"),
    *("is no more", "whole of it", "came no further", "has no say", "held to"),
    *("in the hands of", "in other hands", "was heard of", "without mercy", "made to do harm"),
    *("so far as can be told", "nobody trained", "nobody measured", "somebody looks"),
    # British spelling, and the other spelling of "dataset"
    *("labelled", "unlabelled", "labelling", r"colour\w*", r"behaviour\w*", r"favour\w*"),
    *(r"tokenis\w+", r"normalis\w+", r"initialis\w+", r"serialis\w+", r"organis(?:e|ed|ation)\w*"),
    *("optimis(?:e|ed|er|ers|ation)", "per cent", "data sets?"),
)
WORDS = re.compile(rf"\b(?:{'|'.join(BANNED)})\b", re.IGNORECASE)
SUFFIXES = {".py", ".html", ".js", ".css", ".md", ".ipynb", ".mako"}
FOLDERS = (
    *("app", "worker", "lora_core", "migrations", "tests", "benchmarks", "notebooks", "docs"),
)
OTHER_FILES = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "pyproject.toml"),
    *("Dockerfile", "docker-compose.yml", ".env.example", ".ci/run"),
)
RENAMED = {  # they name the terms that were replaced
    *(ROOT / "migrations/versions").glob("0011_*.py"),
    ROOT / "tests/contracts/test_renamed_rows.py",
    Path(__file__),
}
FILES = [
    *(ROOT / name for name in OTHER_FILES),
    *(
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in SUFFIXES and path not in RENAMED
    ),
]


def read(path: Path) -> str:
    """Return the text of a file; of a notebook the sources of its cells and what they print."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    texts: list[str] = []
    for cell in notebook.cells:
        texts.append(cell.source)
        for output in cell.get("outputs", ()):
            texts.append(output.get("text", ""))
            texts += [text for kind, text in output.get("data", {}).items() if kind[:5] == "text/"]
    return "\n".join(texts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word_is_used(path: Path) -> None:
    name = str(path.relative_to(ROOT)).replace("_", " ")
    text = " ".join([name, *read(path).split()])  # phrases may be wrapped
    assert [text[max(0, m.start() - 30) : m.end() + 30] for m in WORDS.finditer(text)] == []
