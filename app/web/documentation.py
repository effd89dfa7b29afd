"""Serve the documentation of this version, so that it can be read offline.

The documents are Markdown files that come with the package. A page's URL is its file's path below
/guide, so relative links between documents and to images work.
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

from app.web.page import render_template

PATH_PREFIX = "/guide"
# A wheel includes the documents next to this file; a checkout has them in docs/.
_CANDIDATE_DIRS = (Path(__file__).with_name("docs"), Path(__file__).parents[2] / "docs")
DOCS_DIR = next((path for path in _CANDIDATE_DIRS if path.is_dir()), _CANDIDATE_DIRS[0])
SECTIONS = {
    "Start": "tutorial*.md",
    "How-to guides": "how-to/*.md",
    "Reference": "reference/*.md",
    "Explanation": "explanation/*.md",
    "For contributors": "architecture.md",
    "Decisions": "decisions/*.md",
}
# Pages that only Sphinx can build.
_SPHINX_ONLY = ("index.md", "notebooks.md", "library.md")
_SVG = "image/svg+xml"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class RenderedDocument:
    """A rendered document."""

    title: str
    html: Markup


@router.get(PATH_PREFIX)
def contents_page(request: Request) -> Response:
    """Show the table of contents."""
    sections = {
        section: {name: _render_document(name).title for name in _matching_files(pattern)}
        for section, pattern in SECTIONS.items()
    }
    return render_template(request, "guide.html", sections=sections, prefix=PATH_PREFIX)


@router.get(f"{PATH_PREFIX}/{{name:path}}")
def document_page(name: str, request: Request) -> Response:
    """Show a document, or serve one of its images."""
    if name.endswith("index.md"):
        return RedirectResponse(PATH_PREFIX)
    if name in _matching_files("images/*.svg"):
        return FileResponse(DOCS_DIR / name, media_type=_SVG)
    if not _is_document(name):
        raise HTTPException(404)
    return render_template(
        request, "document.html", document=_render_document(name), prefix=PATH_PREFIX
    )


@cache
def _matching_files(pattern: str) -> list[str]:
    paths = [path for path in sorted(DOCS_DIR.glob(pattern)) if path.name not in _SPHINX_ONLY]
    return [path.relative_to(DOCS_DIR).as_posix() for path in paths]


def _is_document(name: str) -> bool:
    return any(name in _matching_files(pattern) for pattern in SECTIONS.values())


@cache
def _render_document(name: str) -> RenderedDocument:
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse((DOCS_DIR / name).read_text(encoding="utf-8"))
    tokens = [token for token in tokens if not _is_sphinx_markup(token)]
    headings = list(_add_heading_ids(tokens))
    for token in tokens:
        if token.children:
            token.children = list(_without_broken_links(token.children, name))
    html = parser.renderer.render(tokens, parser.options, {})
    return RenderedDocument(headings[0] if headings else name, Markup(html))  # noqa: S704 - our own files


def _is_sphinx_markup(token: Token) -> bool:
    """Whether a token is a comment or a directive, such as a table of contents."""
    return token.type == "html_block" or (token.type == "fence" and token.info.startswith("{"))


def _add_heading_ids(tokens: list[Token]) -> Iterator[str]:
    """Give each heading the id that GitHub would, and yield the headings' texts."""
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(token.content for token in inline.children or ())
            opening.attrSet("id", re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
            yield text


def _without_broken_links(tokens: list[Token], name: str) -> Iterator[Token]:
    """Yield tokens without links to files outside the package, such as source files."""
    skip_link = False
    for token in tokens:
        if token.type == "link_open":
            skip_link = not _is_reachable(str(token.attrGet("href")), name)
        if not skip_link or token.type not in ("link_open", "link_close"):
            yield token


def _is_reachable(href: str, name: str) -> bool:
    if re.match(r"[a-z]+:|#", href):
        return True
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), href.partition("#")[0]))
    return target.endswith("index.md") or _is_document(target)
