"""Metrics that the guides mention exist.

Their commands are tested in tests/docs, their links in test_docs_site.py.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = sorted((DOCS / "how-to").glob("*.md"))


def test_every_metric_in_the_guides_exists() -> None:
    text = (DOCS / "reference" / "metrics.md").read_text("utf-8")
    documented = set(re.findall(r"`(loraworks_\w+)`", text))
    named = {
        name for path in GUIDES for name in re.findall(r"\bloraworks_[a-z_]+", path.read_text())
    }
    assert named
    assert named <= documented
