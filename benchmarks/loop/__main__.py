"""The loop from answers back to data, measured: `python -m benchmarks.loop`.

Annotators who know the hidden labels label what the library chooses; intervals, suspect labels, the
drift test, the learning curve, the promotion test and unfamiliar texts are compared with the truth,
and a real server is timed. Every cell runs in its own process and is stored in
`benchmarks/results/`; one whose settings have changed is recomputed. Ends with one JSON object.
`--choose` simulates projects on other datasets, by which settings may be chosen.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
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
    return {"settings": settings(cell, quick=quick), **module.run(cell, quick=quick)}


def settings(cell: Cell, *, quick: bool) -> str:
    """SHA-256 of the plan of a cell; a changed hash means it is recomputed."""
    described: list[Any] = [plan.LEVEL, plan.FLIPPED_SHARE, plan.TOP_SUSPECTS]
    described += [asdict(plan.size(quick=quick)), plan.budget(cell.data, quick=quick)]
    if cell.what == "unfamiliar":  # which trains
        from benchmarks.settings import CLASSIFICATION_VERSION

        described += [CLASSIFICATION_VERSION, plan.UNFAMILIAR_SETS]
    elif cell.what == "suspects":
        from lora_core.data.label_review_schemas import SUSPECTS_VERSION

        described.append(SUSPECTS_VERSION)
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


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
        measure = partial(child_process.measure, "benchmarks.loop", cell.name, quick=quick)
        results.ensure(cell.name, measure, again=not is_kept(cell, results, quick=quick))

    from benchmarks.loop import report

    found = [cell for cell in every if is_kept(cell, results, quick=quick)]
    print(report.table(found, results))
    results.print_missing([cell.name for cell in every], [cell.name for cell in found])
    print(json.dumps(report.summary(found, results)))


def is_kept(cell: Cell, results: ResultsFile, *, quick: bool) -> bool:
    """Whether it was computed with today's settings."""
    return results.is_current(cell.name, settings(cell, quick=quick))


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
