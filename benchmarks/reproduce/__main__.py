"""The table of the "LoRA from scratch" lessons, measured: `python -m benchmarks.reproduce`.

With the base and the data of the lessons where there are a GPU and the hub, else with the packaged
sample: 4,000 of its reviews for training, or 20,000 with `--share 1`. Every cell is computed in a
process of its own and stored in `benchmarks/results/`: a stopped run continues. Stale cells, whose
settings or training version have changed since, are forgotten. Prints the table, writes every
setting of every row next to the results, and ends with one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import child_process
from benchmarks.options import parser
from benchmarks.reproduce import plan
from benchmarks.reproduce.plan import Size
from benchmarks.results_file import ResultsFile, choose
from lora_core.errors import LoraCoreError
from lora_core.process_settings import limit_openmp_spinning, retain_freed_memory

SEEDS = 1


def main(words: Sequence[str] | None = None) -> None:
    arguments = _read(words)
    limit_openmp_spinning()  # as `python -m lora_core train` begins: before torch is loaded
    retain_freed_memory()
    from benchmarks.reproduce import cells, place

    quick: bool = arguments.quick
    try:
        if arguments.cell:
            print(json.dumps(cells.run(plan.find(arguments.cell, quick=quick))))
            return
        size, why = place.chosen(arguments.on, whole=arguments.share == 1)
        size = plan.few(size) if quick else size
        print(f"{size.description()}: {why}.", flush=True)
        results = choose(arguments.results, quick=quick, fresh=False, what="reproduce")
        wanted = [cell.name for cell in plan.cells(size, 1 if quick else arguments.seeds)]
        again = wanted if arguments.fresh else []
        stale = outdated(size, results, quick=quick)
        for name in stale:
            print(f"{name}: stale, from {results.cells[name]['date']}, and forgotten")
        results.remove([*stale, *again])
        for name in wanted:
            results.ensure(
                name, partial(child_process.measure, "benchmarks.reproduce", name, quick=quick)
            )
        print_report(size, results)
    except LoraCoreError as error:
        sys.exit(str(error))


def _read(words: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, None, quick="a few texts, to see that it works")
    options.add_argument("--on", choices=("hub", "sample"), help="the data of the lessons, or ours")
    options.add_argument("--share", type=int, choices=(1,), help="all reviews of the sample")
    options.add_argument("--seeds", type=int, default=SEEDS, help="trainings of each row")
    arguments = options.parse_args(words)
    if arguments.share and arguments.on == "hub":
        options.error("--share is a share of the sample")
    return arguments


def outdated(size: Size, results: ResultsFile, *, quick: bool) -> list[str]:
    """ResultsFile cells of a size whose row is gone, or that would be computed otherwise today."""
    from benchmarks.reproduce import cells, table

    return [
        name
        for name in table.of_size(results, size)
        if name.split("/")[1] not in plan.ROWS
        or not results.is_current(name, cells.settings(plan.find(name, quick=quick)))
    ]


def print_report(size: Size, results: ResultsFile) -> None:
    """Print the table of all stored seeds, write their settings to a file, and print JSON."""
    from benchmarks.reproduce import table  # scipy, which a cell does without

    names = table.of_size(results, size)
    rows = table.summary(names, results)
    print(table.table(rows))
    where = results.where(names)
    devices = sorted({results.metrics(name)["device"] for name in names})
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    processors = " and ".join(where["processor"])
    print(f"{processors}; computed on {', '.join(devices)}; {versions}")
    path = _write_settings(results)
    print(f"Every setting of every row: {path}")
    report = {"size": size.name, "rows": rows, "devices": devices, "settings": path.name}
    print(json.dumps(report | where))


def _write_settings(results: ResultsFile) -> Path:
    """Write the settings and environment of every stored cell to a file with the results."""
    settings: dict[str, Any] = {}
    for name in results.cells:
        metrics = results.metrics(name)
        where = {each: metrics.get(each) for each in ("device", "precision", "threads", "data")}
        settings[name] = {**metrics["settings"], "computed": where}
    path = results.path.with_suffix(".json")
    path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
