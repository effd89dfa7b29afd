"""Accuracy with few labeled texts: `python -m benchmarks.small`.

Every cell is computed in its own process and stored in `benchmarks/results/`: a run that was
stopped continues, and a cell whose settings or texts have changed is recomputed. Prints a
table of test accuracies and ends with one JSON object. With `--choose` it computes the same on
other datasets, by which settings may be chosen.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import child_process
from benchmarks.columns import aligned
from benchmarks.results_file import DIRECTORY, ResultsFile
from benchmarks.small import cells, plan, sets
from benchmarks.small.plan import Cell

QUICK_SETS = ("rotten-tomatoes", "imdb")  # they come with the environment


def main(words: Sequence[str] | None = None) -> None:
    arguments = _read(words)
    if arguments.cell:
        print(json.dumps(cells.run(plan.find(arguments.cell, quick=arguments.quick))))
        return

    names = sets.CHOICE if arguments.choose else QUICK_SETS if arguments.quick else sets.TABLE
    every = [*plan.cells([*names], quick=arguments.quick)]
    file = "small-choice.jsonl" if arguments.choose else "small.jsonl"
    results = ResultsFile(arguments.results / ("quick-" * arguments.quick + file))
    chosen = [cell for cell in every if all(part in cell.name for part in arguments.only)]
    if arguments.fresh:
        results.remove(cell.name for cell in chosen)
    for cell in chosen:
        measure = partial(
            child_process.measure, "benchmarks.small", cell.name, quick=arguments.quick
        )
        results.ensure(cell.name, measure, again=not is_kept(cell, results))
    report(every, results)


def _read(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--choose", action="store_true", help=f"on {', '.join(sets.CHOICE)}, with variants"
    )
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="PART", help="of their names, such as imdb /probe/"
    )
    parser.add_argument("--quick", action="store_true", help="a few texts, to see that it works")
    parser.add_argument("--fresh", action="store_true", help="compute again what was kept")
    parser.add_argument("--results", type=Path, default=DIRECTORY, help="directory to keep them in")
    parser.add_argument("--cell", help="compute this one here, and print it")
    return parser.parse_args(words)


def is_kept(cell: Cell, results: ResultsFile) -> bool:
    """Whether it was computed with today's settings."""
    return results.is_current(cell.name, cells.settings(cell))


def report(every: Sequence[Cell], results: ResultsFile) -> None:
    """Print the table of the kept cells, then the same as one JSON object."""
    from benchmarks.small import summary

    found = [cell for cell in every if is_kept(cell, results)]
    print(aligned(summary.table(every, found, results)))
    names = [cell.name for cell in found]
    results.print_missing([cell.name for cell in every], names)
    print(json.dumps(summary.summary(every, found, results) | results.where(names)))


if __name__ == "__main__":
    main()
