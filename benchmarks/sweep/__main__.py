"""A sweep of 24 trials compared with a loop over PEFT: `python -m benchmarks.sweep`.

Every number is measured in its own process, ours through its own service, and stored in
`benchmarks/results/`: a stopped run continues. Prints a table and ends with one JSON object.
"""

import json
from functools import partial

from benchmarks.child_process import measure
from benchmarks.options import parser
from benchmarks.results_file import choose
from benchmarks.sweep import cells
from benchmarks.sweep.plan import CELLS, FULL, QUICK


def main() -> None:
    arguments = parser(__doc__, CELLS, quick="a few texts and trials").parse_args()
    size = QUICK if arguments.quick else FULL
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, size)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="sweep")
    for cell in CELLS:
        results.ensure(cell, partial(measure, "benchmarks.sweep", cell, quick=arguments.quick))

    from benchmarks.sweep import report  # only now: a cell's imports are timed

    summary = report.summary(results, size)
    print(report.table(results, summary))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
