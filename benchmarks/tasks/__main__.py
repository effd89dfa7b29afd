"""Other tasks and encoders beside the Trainer of transformers: `python -m benchmarks.tasks`.

Several labels, pairs and numbers: accuracy of ours, of PEFT with the Trainer, and of a linear
model. ModernBERT and DeBERTa: seconds of a training, in a file for each processor. Every cell runs
in its own process and is stored in `benchmarks/results/`; stale answers, whose settings or training
version have changed, are recomputed. Ends with one JSON object.
"""

import hashlib
import json
from functools import partial
from typing import Any, cast

from benchmarks.child_process import measure
from benchmarks.options import parser
from benchmarks.results_file import ResultsFile, choose
from benchmarks.tasks.plan import (
    ACCURACY_CELLS,
    BASE,
    BATCH,
    EPOCHS,
    FULL,
    MAX_LENGTH,
    METHOD,
    QUICK,
    RATE,
    SPEED_CELLS,
    Kind,
    Size,
)
from benchmarks.train.plan import WARMUP, WEIGHT_DECAY
from lora_core.process_settings import limit_openmp_spinning, retain_freed_memory


def run(cell: str, size: Size) -> dict[str, Any]:
    """Metrics of a cell named in `plan.CELLS`."""
    if cell.startswith("speed-"):
        encoder, side, _ = cell.removeprefix("speed-").rsplit("-", 2)
        _start(side)
        from benchmarks.tasks import speed

        return speed.seconds(encoder, side, size)
    kind, side, seed = cell.split("-")
    _start(side)
    from benchmarks.tasks import linear, ours, trainer

    compute: Any = {"ours": ours, "trainer": trainer, "linear": linear}[side]
    return {"settings": settings(cell, size), **compute.accuracy(kind, int(seed), size)}


def settings(cell: str, size: Size) -> str:
    """SHA-256 of what the answers of a cell depend on; a changed hash means it is recomputed."""
    described: list[Any] = [size.texts]
    match cell.split("-"):
        case kind, "ours", seed:
            from benchmarks.settings import settings as settings_of_run
            from benchmarks.tasks import ours

            run = ours.spec(cast("Kind", kind), int(seed), "texts.jsonl")
            described.append(settings_of_run(run, size.texts))
        case _, "trainer", _:
            described += [BASE, METHOD.model_dump(mode="json"), EPOCHS, BATCH, MAX_LENGTH, RATE]
            described += [WARMUP, WEIGHT_DECAY]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _start(side: str) -> None:
    if side == "ours":  # as `python -m lora_core train` begins
        limit_openmp_spinning()
        retain_freed_memory()


def main() -> None:
    arguments = parser(
        __doc__, (*ACCURACY_CELLS, *SPEED_CELLS), quick="few texts, small encoders"
    ).parse_args()
    size = QUICK if arguments.quick else FULL
    if arguments.cell:
        print(json.dumps(run(arguments.cell, size)))
        return
    accuracy = ResultsFile(arguments.results / ("quick-" * arguments.quick + "tasks.jsonl"))
    if arguments.fresh:
        accuracy.remove(ACCURACY_CELLS)
    speed = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="tasks")
    for results, cells in ((accuracy, ACCURACY_CELLS), (speed, SPEED_CELLS)):
        for cell in cells:
            stale = results is accuracy and not results.is_current(cell, settings(cell, size))
            compute = partial(measure, "benchmarks.tasks", cell, quick=arguments.quick)
            results.ensure(cell, compute, again=stale)

    from benchmarks.tasks import report

    print(report.table(accuracy, size))
    print(json.dumps(report.summary(accuracy, speed, size)))


if __name__ == "__main__":
    main()
