"""Measures a cell in its own process."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def measure(module: str, cell: str, *, quick: bool) -> dict[str, Any]:
    """The last line of `python -m MODULE --cell CELL`, as JSON. Exits if that process fails."""
    metrics: dict[str, Any] = last_line(cell, module, "--cell", cell, *["--quick"] * quick)
    return metrics


def last_line(what: str, *words: str, environment: Mapping[str, str] | None = None) -> Any:
    """The last line of `python -m WORDS`, as JSON. Exits if that process fails."""
    return last_line_of(what, "-m", *words, environment=environment)


def last_line_of(what: str, *words: str, environment: Mapping[str, str] | None = None) -> Any:
    """The last line of `python WORDS`, as JSON. Exits if that process fails."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{what} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
