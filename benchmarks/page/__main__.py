"""Page load and update times in a real Chromium: `python -m benchmarks.page`.

Every number is measured in its own process against its own service, and stored in
`benchmarks/results/`: a stopped run continues. Prints a table and ends with one JSON object.
"""

import json
from functools import partial

from benchmarks.child_process import measure
from benchmarks.options import parser
from benchmarks.page import cells, report
from benchmarks.page.plan import CELLS, FULL, QUICK
from benchmarks.results_file import choose


def main() -> None:
    arguments = parser(__doc__, CELLS, quick="a few jobs, points and visits").parse_args()
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, QUICK if arguments.quick else FULL)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="page")
    for cell in CELLS:
        results.ensure(cell, partial(measure, "benchmarks.page", cell, quick=arguments.quick))
    summary = report.summary(results)
    print(report.table(summary))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
