"""Serving speed compared with other servers of the same checkpoint: `python -m benchmarks.serve`.

Every cell is measured in a process of its own, which starts its server and the load, one after the
other, and is kept in `benchmarks/results/`: a stopped run continues. Prints a table and ends
with one JSON object.
"""

import json
import signal
import sys
from functools import partial

from benchmarks.child_process import last_line
from benchmarks.options import parser
from benchmarks.results_file import ResultsFile, choose
from benchmarks.serve import report
from benchmarks.serve.plan import CELLS, FULL, QUICK, takes_share
from lora_core.process_settings import limit_openmp_spinning


def main() -> None:
    options = parser(__doc__, CELLS, quick="shorter windows")
    options.add_argument("--capacity", type=float, default=0.0, help="answers a second, for --cell")
    arguments = options.parse_args()
    if arguments.cell:
        limit_openmp_spinning()  # as the service does, before torch is loaded
        from benchmarks.serve import cells

        # On SIGTERM, end the server too, which has its own process group.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        size = QUICK if arguments.quick else FULL
        print(json.dumps(cells.run(arguments.cell, size, arguments.capacity)))
        return

    last_line("the checkpoint", "benchmarks.serve.checkpoint")
    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="serve")
    for cell in CELLS:
        words = _words(cell, results, quick=arguments.quick)
        results.ensure(cell, partial(last_line, cell, "benchmarks.serve", *words))
    summary = report.summary(results)
    print(report.table(results, summary))
    print(json.dumps(summary))


def _words(cell: str, results: ResultsFile, *, quick: bool) -> list[str]:
    words = ["--cell", cell, *["--quick"] * quick]
    if takes_share(cell):
        words += ["--capacity", str(results.metrics("closed-ours")["per_s"])]
    return words


if __name__ == "__main__":
    main()
