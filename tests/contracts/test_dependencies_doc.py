"""docs/reference/dependencies.md has a line for each direct dependency, and for no other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_dependency_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| ([a-z][^ ]*) \|", page, flags=re.MULTILINE)
    assert sorted(names) == sorted(each.split(">=")[0] for each in wanted)
