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


def last_line(
    what: str,
    *words: str,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> Any:
    """The last line of `python -m WORDS`, as JSON. Exits if that process fails.

    Raises `TimeoutExpired` if it takes longer than `seconds`, and ends it.
    """
    return last_line_of(what, "-m", *words, environment=environment, seconds=seconds)


def last_line_of(
    what: str,
    *words: str,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> Any:
    """The same of `python WORDS`."""
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun then ends the processes that it started
            raise
    if process.returncode != 0:
        sys.exit(f"{what} failed:\n{stderr}")
    return json.loads(stdout.splitlines()[-1])
