"""The loop from answers back to data, measured: `python -m benchmarks.loop`.

Annotators who know the hidden labels label what the library chooses; intervals, suspect labels, the
drift test, the learning curve, the promotion test and unfamiliar texts are compared with the truth,
and a real server is timed. Every cell runs in its own process and is stored in
`benchmarks/results/`. Ends with one JSON object. `--choose` simulates projects on other datasets,
by which settings may be chosen.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import child_process
from benchmarks.loop import plan
from benchmarks.loop.plan import Cell
from benchmarks.results_file import DIRECTORY, ResultsFile

MODULES = {
    "labels": "labeling",
    "live": "live",
    "suspects": "suspects",
    "drift": "drift",
    "curve": "learning_curve",
    "promote": "promotion",
    "unfamiliar": "unfamiliar",
    "service": "service",
}


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """Measure a cell here."""
    module = import_module(f"benchmarks.loop.{MODULES[cell.what]}")
    found: dict[str, Any] = module.run(cell, quick=quick)
    return found


def main(words: Sequence[str] | None = None) -> None:
    arguments = _read(words)
    quick = arguments.quick
    if arguments.cell:
        print(json.dumps(run(plan.find(arguments.cell, quick=quick), quick=quick)))
        return
    file = "loop-choice.jsonl" if arguments.choose else "loop.jsonl"
    results = ResultsFile(arguments.results / ("quick-" * quick + file))
    every = plan.cells(quick=quick, choose=arguments.choose)
    chosen = [cell for cell in every if all(part in cell.name for part in arguments.only)]
    if arguments.fresh:
        results.remove(cell.name for cell in chosen)
    for cell in chosen:
        results.ensure(
            cell.name, partial(child_process.measure, "benchmarks.loop", cell.name, quick=quick)
        )

    from benchmarks.loop import report

    print(report.table(every, results))
    print(json.dumps(report.summary(every, results)))


def _read(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--choose", action="store_true", help=f"on {', '.join(plan.CHOICE_BUDGETS)}"
    )
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="PART", help="of their names, such as labels/"
    )
    parser.add_argument("--quick", action="store_true", help="a few texts, to see that it works")
    parser.add_argument("--fresh", action="store_true", help="measure again what was kept")
    parser.add_argument("--results", type=Path, default=DIRECTORY, help="directory to keep them in")
    parser.add_argument("--cell", help="measure this one here, and print it")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
