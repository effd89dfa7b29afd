"""The documents of this version, so that they can be read where no network is.

They are Markdown files that come with the package. A page has the address of its file below
/guide, so links between documents and to their pictures lead where they should.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from fastapi import APIRouter, Request
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response

from app.web.page import render

PREFIX = "/guide"
# In a wheel beside this file; in a checkout where they are written.
_PLACES = (Path(__file__).with_name("docs"), Path(__file__).parents[2] / "docs")
ROOT = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
SECTIONS = {
    "Start": "tutorial.md",
    "How-to guides": "how-to/*.md",
    "Reference": "reference/*.md",
    "Explanation": "explanation/*.md",
    "For contributors": "architecture.md",
    "Decisions": "decisions/*.md",
}
# Lists and pages that only the site of the documents can make.
_OF_THE_SITE = ("index.md", "notebooks.md", "library.md")
_PICTURE = "image/svg+xml"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Document:
    """One page."""

    title: str
    html: Markup


@router.get(PREFIX)
def contents(request: Request) -> Response:
    """What there is to read."""
    sections = {
        section: {name: _read(name).title for name in _names(pattern)}
        for section, pattern in SECTIONS.items()
    }
    return render(request, "guide.html", sections=sections, prefix=PREFIX)


@router.get(f"{PREFIX}/{{name:path}}")
def document(name: str, request: Request) -> Response:
    """One document, or one of its pictures."""
    if name.endswith("index.md"):
        return RedirectResponse(PREFIX)
    if name in _pictures():
        return FileResponse(ROOT / name, media_type=_PICTURE)
    if not _is_page(name):
        raise HTTPException(404)
    return render(request, "document.html", document=_read(name), prefix=PREFIX)


@cache
def _names(pattern: str) -> list[str]:
    found = [path for path in sorted(ROOT.glob(pattern)) if path.name not in _OF_THE_SITE]
    return [path.relative_to(ROOT).as_posix() for path in found]


def _pictures() -> list[str]:
    return _names("images/*.svg")


def _is_page(name: str) -> bool:
    return any(name in _names(pattern) for pattern in SECTIONS.values())


@cache
def _read(name: str) -> Document:
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse((ROOT / name).read_text(encoding="utf-8"))
    tokens = [token for token in tokens if not _is_of_the_site(token)]
    headings = list(_headings(tokens))
    for token in tokens:
        if token.children:
            token.children = list(_working_links(token.children, name))
    html = parser.renderer.render(tokens, parser.options, {})
    return Document(headings[0] if headings else name, Markup(html))  # noqa: S704 - our own files


def _is_of_the_site(token: Token) -> bool:
    """Comments, and directives such as a table of contents."""
    return token.type == "html_block" or (token.type == "fence" and token.info.startswith("{"))


def _headings(tokens: list[Token]) -> Iterator[str]:
    """Their texts. Each gets the id by which links name it, as on a code host."""
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(each.content for each in inline.children or ())
            opening.attrSet("id", re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
            yield text


def _working_links(tokens: list[Token], name: str) -> Iterator[Token]:
    """All tokens but the links to what does not come with the package, such as source files."""
    dropped = False
    for token in tokens:
        if token.type == "link_open":
            dropped = not _leads_somewhere(str(token.attrGet("href")), name)
        if not dropped or token.type not in ("link_open", "link_close"):
            yield token


def _leads_somewhere(href: str, name: str) -> bool:
    if re.match(r"[a-z]+:|#", href):
        return True
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), href.partition("#")[0]))
    return target.endswith("index.md") or _is_page(target)
