"""Links to folders and files of the repository, as a code host would follow them.

A folder with an `index.md` is that page. A file that people read, such as `lora_core/adapters.py`,
becomes a page of its own with its lines in color; any other file is a download.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

LONGEST = 50_000  # bytes: more is data
Page = tuple[str, dict[str, Any], str]


class FolderLinks(SphinxTransform):
    """`[decisions](decisions)` leads to `decisions/index.md`."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        for link in self.document.findall(addnodes.pending_xref):
            if link["reftype"] == "myst" and not link["refdomain"]:
                _, path = self.env.relfn2path(link["reftarget"], self.env.docname)
                index = self.env.path2doc(f"{path}/index.md")
                if index and Path(path, "index.md").is_file():
                    link.attributes |= {"refdomain": "doc", "reftarget": index, "reftargetid": None}


class FileLinks(SphinxTransform):
    """A link to a file that is no document leads to its page."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        for link in list(self.document.findall(addnodes.download_reference)):
            name, path = self.env.relfn2path(link["reftarget"], self.env.docname)
            if link["reftype"] == "myst" and is_read(Path(path)):
                self.env.source_pages.add(name)
                address = self.app.builder.get_relative_uri(self.env.docname, page_name(name))
                link.replace_self(
                    nodes.reference("", "", *link.children, refuri=address, internal=True)
                )


def is_read(file: Path) -> bool:
    """Whether people would read it: a text, and not too long."""
    content = file.read_bytes()
    return len(content) <= LONGEST and b"\0" not in content


def page_name(file: str) -> str:
    return f"source/{file}"


def remember(app: Sphinx) -> None:
    """Which files have a page; kept with what Sphinx keeps from one build to the next."""
    app.env.source_pages = getattr(app.env, "source_pages", set())


def pages(app: Sphinx) -> Iterator[Page]:
    for name in sorted(app.env.source_pages):
        text = Path(app.srcdir, name).read_text(encoding="utf-8")
        shown = app.builder.highlighter.highlight_block(text, language(name), linenos="inline")
        title = name.replace("/", "/<wbr>")
        yield page_name(name), {"title": name, "body": f"<h1>{title}</h1>\n{shown}"}, "page.html"


def language(name: str) -> str:
    try:
        return str(get_lexer_for_filename(name).aliases[0])
    except ClassNotFound:
        return "text"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(FolderLinks)
    app.add_transform(FileLinks)
    app.connect("builder-inited", remember)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
