"""The guides speak of figures and files that there are; tests/docs looks at their commands."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
