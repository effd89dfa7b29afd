"""How fast we answer, beside other servers of the same checkpoint: `python -m benchmarks.serve`.

Every cell is measured in a process of its own, which starts its server and the load, one after the
other, and is kept in `benchmarks/results/`: a run that was stopped goes on. Prints a table and ends
with one JSON object.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from benchmarks.apart import last_line, shown
from benchmarks.kept import DIRECTORY, Kept, choose
from benchmarks.serving import report
from benchmarks.serving.plan import CELLS, FULL, QUICK, takes_share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter windows")
    parser.add_argument("--fresh", action="store_true", help="measure again what was kept")
    parser.add_argument("--results", type=Path, default=DIRECTORY, help="directory to keep them in")
    parser.add_argument("--cell", choices=CELLS, help="measure this one here, and print it")
    parser.add_argument("--capacity", type=float, default=0.0, help="answers a second, for --cell")
    arguments = parser.parse_args()
    if arguments.cell:
        from benchmarks.serving import cells

        # Told to end, it ends its server too, which has a process group of its own.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
        size = QUICK if arguments.quick else FULL
        print(json.dumps(cells.run(arguments.cell, size, arguments.capacity)))
        return

    last_line("the checkpoint", "benchmarks.serving.checkpoint")
    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="serve")
    for cell in CELLS:
        kept = cell in results.cells
        if not kept:
            began = time.monotonic()
            words = _words(cell, results, quick=arguments.quick)
            figures = last_line(cell, "benchmarks.serve", *words)
            results.keep(cell, figures, time.monotonic() - began)
        record = results.cells[cell]
        when = f"kept from {record['date']}" if kept else f"{record['seconds']} s"
        print(f"{cell:16} {shown(record['figures'])}  ({when})", flush=True)
    told = report.summary(results)
    print(report.table(results, told))
    print(json.dumps(told))


def _words(cell: str, results: Kept, *, quick: bool) -> list[str]:
    words = ["--cell", cell, *["--quick"] * quick]
    if takes_share(cell):
        words += ["--capacity", str(results.figures("closed-ours")["per_s"])]
    return words


if __name__ == "__main__":
    main()
