"""Formulas as MathML, which browsers draw by themselves: no script, and no font from elsewhere."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, unichar2tex
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

SAME = {r"\dots": r"\ldots", r"\texttt": r"\mathtt"}  # for words that docutils does not know

log = logging.getLogger(__name__)


def visit(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """Write the formula. What docutils cannot read of it is a warning, so it fails the build."""
    block = isinstance(node, nodes.math_block)
    formula = node.astext()
    known = re.sub(r"\\[a-z]+", lambda word: SAME.get(word[0], word[0]), formula)
    try:
        drawn = tex2mathml(known.translate(unichar2tex.uni2tex_table), as_block=block)
    except MathError as error:
        log.warning("formula %r: %s", formula, error, location=node)
        drawn = f"<code>{writer.encode(formula)}</code>"
    writer.body.append(f'<div class="formula">{drawn}</div>\n' if block else drawn)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit, None), (visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
