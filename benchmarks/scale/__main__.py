"""What 100,000 jobs and a million points cost whoever submits, claims, lists and cleans up.

`python -m benchmarks.scale` fills SQLite and PostgreSQL, measures each in a process of its own,
removes both again, and keeps the figures in `benchmarks/results/`. Prints a table and ends with one
JSON object; the exit status is 1 if a bound is missed.
"""

import json
import sys
from functools import partial

from benchmarks.apart import measure
from benchmarks.kept import choose
from benchmarks.options import parser
from benchmarks.scale import cells, report
from benchmarks.scale.plan import CELLS, FULL, QUICK


def main() -> None:
    arguments = parser(__doc__, CELLS, quick="2,000 jobs, few requests").parse_args()
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, QUICK if arguments.quick else FULL)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="scale")
    for cell in CELLS:
        results.ensure(cell, partial(measure, "benchmarks.scale", cell, quick=arguments.quick))
    told = report.summary(results)
    print(report.table(told))
    print(json.dumps(told))
    sys.exit(0 if told["met"] else 1)


if __name__ == "__main__":
    main()
