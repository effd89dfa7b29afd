"""Every class of crash points has a kept run that violated nothing; a tenth of them runs again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slow import slow_but

LEAST_CLASSES = {"sqlite": 130, "both": 134}


def crash_points(*arguments: str) -> dict[str, Any]:
    """Run `python -m tests.crash_points` and return its last line."""
    command = [sys.executable, "-m", "tests.crash_points", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    counts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", slow_but(("sqlite", "both"), "sqlite"))
def test_every_class_has_been_run(database: str) -> None:
    """After a new call site: `make crash-points`, which runs what is new and keeps it."""
    counts = crash_points("--check", "--database", database)
    assert counts["violations"] == 0
    assert counts["classes"] > LEAST_CLASSES[database]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_fixed_tenth_violates_nothing(tmp_path: Path) -> None:
    counts = crash_points("--quick", "--runs", str(tmp_path / "runs.jsonl"))
    assert counts["violations"] == 0
    assert counts["runs"] > 50
