"""How soon pages show what is there, in a real Chromium: `python -m benchmarks.page`.

Every figure is measured in a process of its own, before a service of its own, and kept in
`benchmarks/results/`: a run that was stopped goes on. Prints a table and ends with one JSON object.
"""

import json
from functools import partial

from benchmarks.apart import measure
from benchmarks.kept import choose
from benchmarks.options import parser
from benchmarks.page import cells, report
from benchmarks.page.plan import CELLS, FULL, QUICK


def main() -> None:
    arguments = parser(__doc__, CELLS, quick="a few jobs, points and visits").parse_args()
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, QUICK if arguments.quick else FULL)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="page")
    for cell in CELLS:
        results.ensure(cell, partial(measure, "benchmarks.page", cell, quick=arguments.quick))
    told = report.summary(results)
    print(report.table(told))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
