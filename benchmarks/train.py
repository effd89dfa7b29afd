"""How fast we train, side by side with PEFT and the Trainer: `python -m benchmarks.train`.

Every figure is measured in a process of its own, ours and the rivals in turn, and kept in
`benchmarks/results/`: a run that was stopped goes on. Prints a table, draws a picture, and ends
with one JSON object.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import cells
from benchmarks.kept import DIRECTORY, choose
from benchmarks.plan import CELLS, FULL, QUICK

ROOT = Path(__file__).parents[1]


def measure(cell: str, *, quick: bool) -> dict[str, Any]:
    """The figures of a cell from a new process; its last line. Ends this one if it fails."""
    command = [sys.executable, "-m", "benchmarks.train", "--cell", cell]
    command += ["--quick"] if quick else []
    # This process stays small: a child begins with the peak memory of its parent.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{cell} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def shown(figures: dict[str, Any]) -> str:
    """The single numbers of a cell."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter windows, fewer texts")
    parser.add_argument("--fresh", action="store_true", help="measure again what was kept")
    parser.add_argument("--results", type=Path, default=DIRECTORY, help="directory to keep them in")
    parser.add_argument("--cell", choices=CELLS, help="measure this one here, and print it")
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, QUICK if arguments.quick else FULL)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh)
    for cell in CELLS:
        kept = cell in results.cells
        if not kept:
            began = time.monotonic()
            figures = measure(cell, quick=arguments.quick)
            results.keep(cell, figures, time.monotonic() - began)
        record = results.cells[cell]
        when = f"kept from {record['date']}" if kept else f"{record['seconds']} s"
        print(f"{cell:24} {shown(record['figures'])}  ({when})", flush=True)

    from benchmarks import report  # only now: matplotlib needs memory

    told = report.summary(results)
    report.draw(results, results.path.with_suffix(".png"))
    print(report.table(told))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
