"""A cell measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def measure(module: str, cell: str, *, quick: bool) -> dict[str, Any]:
    """What `python -m MODULE --cell CELL` prints last. Ends this process if that one fails."""
    command = [sys.executable, "-m", module, "--cell", cell]
    command += ["--quick"] if quick else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{cell} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def shown(figures: dict[str, Any]) -> str:
    """The single numbers of a cell."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
