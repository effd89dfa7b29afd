"""Metrics that the guides mention exist, and every action of the audit log is listed.

Their commands are tested in tests/docs, their links in test_docs_site.py.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "how-to").glob("*.md"))
AUDITED = re.compile(r'(?:write_audit_line[(,]|_audit\(session,)\s*"(\w+)"')


def test_every_metric_in_the_guides_exists() -> None:
    text = (DOCS / "reference" / "metrics.md").read_text("utf-8")
    documented = set(re.findall(r"`(loraworks_\w+)`", text))
    named = {
        name for path in GUIDES for name in re.findall(r"\bloraworks_[a-z_]+", path.read_text())
    }
    assert named
    assert named <= documented


def test_every_action_of_the_audit_log_is_listed() -> None:
    sources = [path.read_text("utf-8") for path in sorted((ROOT / "app").rglob("*.py"))]
    actions = {action for source in sources for action in AUDITED.findall(source)}
    text = (DOCS / "how-to" / "operations.md").read_text("utf-8")
    listed = set(re.findall(r"`(\w+)`", text.partition("**Audit log.**")[2].partition("## ")[0]))
    assert len(actions) > 20
    assert actions <= listed
