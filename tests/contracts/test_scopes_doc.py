"""docs/reference/api.md describes every scope."""

import re
from pathlib import Path

from app.auth.tables import ALL_SCOPES

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


def test_every_scope_is_described() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("## Scopes\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall("`(.+?)`", "".join(cells))) == sorted(ALL_SCOPES)
