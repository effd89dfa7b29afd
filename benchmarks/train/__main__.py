"""How fast we train, side by side with PEFT and the Trainer: `python -m benchmarks.train`.

Every number is measured in its own process, ours and the competitors in turn, and stored in
`benchmarks/results/`: a stopped run continues. Prints a table, draws a picture, and ends
with one JSON object. Fails if the tuned competitor is slower in our harness than in a plain script.
"""

import json
from functools import partial

from benchmarks.child_process import measure
from benchmarks.options import parser
from benchmarks.results_file import choose
from benchmarks.train import cells
from benchmarks.train.plan import CELLS, FULL, QUICK


def main() -> None:
    arguments = parser(__doc__, CELLS, quick="shorter windows, fewer texts").parse_args()
    if arguments.cell:
        print(json.dumps(cells.run(arguments.cell, QUICK if arguments.quick else FULL)))
        return

    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh)
    for cell in CELLS:
        # This process stays small: a child begins with the peak memory of its parent.
        results.ensure(cell, partial(measure, "benchmarks.train", cell, quick=arguments.quick))

    from benchmarks.train import report  # only now: matplotlib needs memory

    summary = report.summary(results)
    report.draw(results, results.path.with_suffix(".png"))
    print(report.table(summary))
    print(json.dumps(summary))
    if not arguments.quick:  # windows of two steps decide nothing
        report.check(summary)


if __name__ == "__main__":
    main()
