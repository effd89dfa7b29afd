"""Accuracy of the LoRA defaults: `python -m benchmarks.accuracy`.

Every cell is computed in its own process and stored in `benchmarks/results/`: a run that was
stopped continues, and a stale cell, whose settings or training version have changed, is recomputed.
Prints a table of test accuracies and ends with one JSON object. With `--try` it changes one default
at a time and prints the gain on validation; the test split is not used.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import child_process
from benchmarks.accuracy import changes, contenders
from benchmarks.accuracy.changes import CHANGES
from benchmarks.accuracy.contenders import FULL, Cell, few
from benchmarks.results_file import DIRECTORY, ResultsFile
from lora_core.process_settings import limit_openmp_spinning, retain_freed_memory
from lora_core.specs.data import DataSpec


def main(words: Sequence[str] | None = None) -> None:
    arguments = _read(words)
    limit_openmp_spinning()  # as `python -m lora_core train` begins: before torch is loaded
    retain_freed_memory()
    if arguments.cell:
        from benchmarks.accuracy import answers

        print(json.dumps(answers.run(_find(arguments.cell, quick=arguments.quick))))
        return

    tries = arguments.tried is not None
    data = _data(tries=tries, quick=arguments.quick)
    if unknown := {*(arguments.data or ())} - data.keys():
        raise SystemExit(f"there are no cells of {min(unknown)} here, but of {', '.join(data)}")
    data = {name: data[name] for name in arguments.data or data}
    cells = [*(changes.cells(arguments.tried, data) if tries else contenders.cells(data))]
    for name in filter(changes.is_default, arguments.tried or ()):
        print(f"{name}: the defaults have it")
    file = "changes.jsonl" if tries else "accuracy.jsonl"
    results = ResultsFile(arguments.results / ("quick-" * arguments.quick + file))
    chosen = [cell for cell in cells if arguments.only in cell.name]
    if arguments.fresh:
        results.remove(cell.name for cell in chosen)
    for cell in chosen:
        measure = partial(
            child_process.measure, "benchmarks.accuracy", cell.name, quick=arguments.quick
        )
        results.ensure(cell.name, measure, again=not is_kept(cell, results))
    print_report(cells, results, tries=tries)


def _read(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--try", nargs="*", choices=CHANGES, dest="tried", metavar="CHANGE",
        help=f"try these, or all: {', '.join(CHANGES)}",
    )  # fmt: skip
    parser.add_argument("--data", nargs="+", metavar="NAME", help="on these alone")
    parser.add_argument("--only", default="", metavar="PART", help="such as /lora/ or /0")
    parser.add_argument("--quick", action="store_true", help="a few texts, to see that it works")
    parser.add_argument("--fresh", action="store_true", help="compute again what was kept")
    parser.add_argument("--results", type=Path, default=DIRECTORY, help="directory to keep them in")
    parser.add_argument("--cell", help="compute this one here, and print it")
    return parser.parse_args(words)


def _data(*, tries: bool, quick: bool) -> Mapping[str, DataSpec]:
    data = changes.DATA if tries else FULL
    return few(data) if quick else data


def _find(name: str, *, quick: bool) -> Cell:
    table, tries = (_data(tries=tries, quick=quick) for tries in (False, True))
    for cell in (*contenders.cells(table), *changes.cells([*CHANGES], tries)):
        if cell.name == name:
            return cell
    raise SystemExit(f"there is no cell {name}; one is imdb-8000/lora/0")


def is_kept(cell: Cell, results: ResultsFile) -> bool:
    """Whether it was computed with today's settings."""
    from benchmarks.accuracy import answers

    return results.is_current(cell.name, answers.settings(cell))


def print_report(cells: Sequence[Cell], results: ResultsFile, *, tries: bool) -> None:
    """Print the table of computed cells, then the same as JSON."""
    from benchmarks.accuracy import gains, standings

    found = [cell for cell in cells if is_kept(cell, results)]
    report: dict[str, Any]
    if tries:
        report = gains.summary(found, results)
        print(gains.table(report))
    else:
        report = standings.summary(found, results)
        print(standings.table(report))
    names = [cell.name for cell in found]
    results.print_missing([cell.name for cell in cells], names)
    print(json.dumps(report | results.where(names)))


if __name__ == "__main__":
    main()
