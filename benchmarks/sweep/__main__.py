"""A sweep of 24 cells beside a loop over PEFT and the Trainer: `python -m benchmarks.sweep`.

Every figure is measured in a process of its own, ours through a service of its own, and kept in
`benchmarks/results/`: a run that was stopped goes on. Prints a table and ends with one JSON object.
"""

import json
from functools import partial

from benchmarks.apart import measure
from benchmarks.kept import choose
from benchmarks.options import parser
from benchmarks.sweep import cells
from benchmarks.sweep.plan import CELLS, FULL, QUICK


def main() -> None:
    arguments = parser(__doc__, CELLS, quick="a few texts and cells").parse_args()
    size = QUICK if arguments.quick else FULL
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, size)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="sweep")
    for cell in CELLS:
        results.ensure(cell, partial(measure, "benchmarks.sweep", cell, quick=arguments.quick))

    from benchmarks.sweep import report  # only now: a cell's imports are timed

    told = report.summary(results, size)
    print(report.table(results, told))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
