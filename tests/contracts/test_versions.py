"""Minimum versions without known vulnerabilities or data loss."""

import re
from pathlib import Path

import pysqlite3.dbapi2 as sqlite
import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FLOORS = {
    "starlette": "1.3.0",  # Host header bypass, Range and multipart denial of service
    "python-multipart": "0.0.27",  # CVE-2026-42561, CVE-2026-40347
    "transformers": "5.0",  # CVE-2026-1839: rng_state.pth unpickled
    "pyarrow": "26",  # CVE-2026-92287, CVE-2023-47248
}
TORCH = "2.10"  # CVE-2026-24747: memory corruption even with weights_only


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in lines if line[0] != "#"]
    assert all(found), "every line pins one exact version"
    return {match[1].lower().replace("_", "-"): Version(match[2]) for match in found if match}


def requirements() -> dict[str, Requirement]:
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("dependencies = [", 1)[1].split("\n]", 1)[0]
    return {each.name: each for each in map(Requirement, re.findall(r'"(.+?)"', block))}


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_versions_are_above_the_minimum(package: str, floor: str) -> None:
    assert pins()[package] >= Version(floor)
    just_below = Version(f"{floor}.dev0")
    assert not requirements()[package].specifier.contains(just_below, prereleases=True)


def test_torch_range_is_above_the_minimum() -> None:
    assert "torch" not in pins()
    specifier = requirements()["torch"].specifier
    assert not specifier.contains("2.9.9")
    assert specifier.contains(Version(torch.__version__).public)
    assert Version(torch.__version__) >= Version(TORCH)


def test_requirements_except_torch_are_pinned_within_range() -> None:
    for name, requirement in requirements().items():
        if name != "torch":
            assert requirement.specifier.contains(pins()[name.lower()]), name


def test_bundled_sqlite_is_above_the_minimum() -> None:
    assert sqlite.sqlite_version_info >= (3, 51, 3)
