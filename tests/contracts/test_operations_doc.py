"""The guides speak of figures that there are.

Their commands are looked at by tests/docs, their links by test_docs_site.py.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = sorted((DOCS / "how-to").glob("*.md"))


def test_every_figure_is_one() -> None:
    text = (DOCS / "reference" / "metrics.md").read_text("utf-8")
    known = set(re.findall(r"`(loraworks_\w+)`", text))
    named = {
        name for path in GUIDES for name in re.findall(r"\bloraworks_[a-z_]+", path.read_text())
    }
    assert named
    assert named <= known
