"""Times to submit, claim, list, watch and clean up with 100,000 jobs and a million points, and the
bytes of one more LoRA version.

`python -m benchmarks.scale` fills SQLite and PostgreSQL, measures each in a process of its own,
removes both again, and stores the results in `benchmarks/results/`. Prints a table and finally one
JSON object; the exit status is 1 if a bound is missed.
"""

import json
import sys
from functools import partial

from benchmarks.child_process import last_line, measure
from benchmarks.options import parser
from benchmarks.results_file import choose
from benchmarks.scale import cells, report
from benchmarks.scale.plan import CELLS, FULL, MODEL, QUICK


def main() -> None:
    arguments = parser(__doc__, CELLS, quick="2,000 jobs, few requests").parse_args()
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, QUICK if arguments.quick else FULL)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="scale")
    for cell in CELLS:
        results.ensure(cell, partial(measure, "benchmarks.scale", cell, quick=arguments.quick))
    results.ensure(MODEL, partial(last_line, "the size of a model", "benchmarks.scale.model_bytes"))
    summary = report.summary(results)
    print(report.table(summary))
    print(json.dumps(summary))
    sys.exit(0 if summary["met"] else 1)


if __name__ == "__main__":
    main()
