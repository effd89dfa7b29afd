"""Notebooks as pages, with the outputs that are stored in them. Nothing is run."""

import json
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

Cell = dict[str, Any]
COLORS = re.compile(r"\x1b\[[0-9;]*m")


class NotebookParser(MystParser):
    """Reads a notebook as the Markdown that shows the same."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        file = f"{document.settings.env.docname.rpartition('/')[2]}.ipynb"
        cells = (part for cell in json.loads(inputstring)["cells"] for part in shown(cell))
        last = f"---\n\nThis page is {{download}}`{file} <{file}>` with its stored outputs."
        super().parse("\n\n".join([*cells, last]), document)


def shown(cell: Cell) -> Iterator[str]:
    """A cell and its outputs, as Markdown."""
    text = joined(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
    elif cell["cell_type"] == "code" and text:
        yield fenced("python", text)
        yield from map(output, cell["outputs"])


def output(made: Cell) -> str:
    """One output, in the richest form that a page can show."""
    if made["output_type"] == "error":
        return fenced("{code-block} text\n:class: output", "\n".join(made["traceback"]))
    forms = made.get("data", {"text/plain": made.get("text", "")})
    for kind in ("image/svg+xml", "text/html"):
        if kind in forms:
            return fenced("{raw} html", f'<div class="output">{joined(forms[kind])}</div>')
    if "image/png" in forms:
        picture = "".join(joined(forms["image/png"]).split())
        return f"![What the cell above draws](data:image/png;base64,{picture})"
    if "text/markdown" in forms:
        return joined(forms["text/markdown"])
    return fenced("{code-block} text\n:class: output", joined(forms["text/plain"]))


def joined(text: str | list[str]) -> str:
    """Notebooks keep a text whole or as its lines."""
    return "".join(text).strip("\n")


def fenced(info: str, text: str) -> str:
    """A block whose fence is longer than any that it holds."""
    text = COLORS.sub("", text)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    kind, _, options = info.partition("\n")
    head = f"{options}\n\n" if options else ""
    return f"{ticks}{kind}\n{head}{text}\n{ticks}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
