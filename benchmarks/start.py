"""Time from the claim to the end of the first step: `python -m benchmarks.start`.

1,000 sentences of film reviews, the sample base, LoRA, an idle worker on SQLite. Two workers take
turns: one forks the process of a training, the other one starts a fresh interpreter for it. The
caches of the machine are warm: a run of each comes first that is not counted. Prints the quartiles
of both, and as its last line one JSON object; the exit status is 1 if the bound is missed.

The time begins when the claim's transaction reads the clock and ends after the first update of the
weights, where a failpoint holds the training until it is cancelled.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from app.database.engines import Database, open_database
from app.database.migrations import upgrade
from app.jobs import repository
from app.queue.enums import JobState
from app.settings import Settings
from benchmarks.options import parser
from benchmarks.results_file import choose
from lora_core.specs.train import TrainSpec
from tests.job_rows import add_job, attempts, get_job
from tests.waiting import wait_until

RUNS, QUICK_RUNS = 20, 3  # of each kind
MOST_START_MS = 1200.0  # of a forked training; median
KINDS = {"start": True, "start_before": False}  # the worker has a fork server
PLAN = {"parameters": {"trainable": 1, "total": 2, "exact": True}, "estimated_seconds": 9}
SPEC = TrainSpec.model_validate(
    {
        "method": {"type": "lora"},
        "data": {"source": "rotten-tomatoes", "train_size": 1000},
        "runtime": {"device": "cpu"},
    }
).model_dump(mode="json")


class Worker:
    """A worker of its own installation, whose trainings wait after their first step."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._database = database
        self._hold = folder / "hold"  # trainings wait while this file exists

    def measure(self) -> float:
        """Milliseconds from the claim to the end of the first step of a training."""
        self._hold.touch()
        reached = self._hold.with_name("hold.reached")
        job_id = add_job(self._database, spec=SPEC, base=SPEC["base"], plan=PLAN)
        wait_until(reached.exists, seconds=120, what="the first step")
        (attempt,) = attempts(self._database, job_id)
        took = 1000 * (reached.stat().st_mtime - attempt.started_at)
        with self._database.write() as session:
            repository.request_cancel(session, job_id)
        self._hold.unlink()
        wait_until(
            lambda: JobState(get_job(self._database, job_id).state).final,
            seconds=60,
            what="the end of the training",
        )
        reached.unlink()
        return took


@contextmanager
def running_worker(folder: Path, *, fork_server: bool) -> Iterator[Worker]:
    """An idle worker of a new installation in this folder."""
    settings = Settings(data_dir=folder / "data")
    upgrade(settings)
    environment = os.environ | {
        "LORAWORKS_DATA_DIR": str(settings.data_dir),
        "LORAWORKS_FORK_SERVER": str(fork_server),
        "LORAWORKS_FAULT": f"step@1:pause:{folder / 'hold'}",
        "LORAWORKS_MIN_FREE_BYTES": "0",
    }
    database = open_database(settings)
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker"],
            stdin=subprocess.DEVNULL,
            stderr=log,
            env=environment,
        )
    try:
        yield Worker(folder, database)
    finally:
        process.terminate()
        process.wait()
        database.close()


def measure(runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run, by kind. The kinds take turns."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {}
        for kind, fork_server in KINDS.items():
            own = Path(folder) / kind
            own.mkdir()
            workers[kind] = stack.enter_context(running_worker(own, fork_server=fork_server))
        for run in range(runs + 1):
            for kind, worker in workers.items():
                took = worker.measure()
                if run > 0:
                    found[kind].append(round(took, 1))
    return found


def quartiles(took: list[float]) -> dict[str, Any]:
    """The quartiles in milliseconds, and all runs."""
    low, middle, high = (round(each, 1) for each in statistics.quantiles(took, n=4))
    return {"p25": low, "p50": middle, "p75": high, "runs": took}


def summary(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float | bool]:
    """The medians, and whether the bound is met."""
    return {
        "start_ms_p50": metrics["start"]["p50"],
        "start_ms_before": metrics["start_before"]["p50"],
        "met": metrics["start"]["p50"] <= MOST_START_MS,
    }


def main() -> None:
    arguments = parser(__doc__, None, quick=f"{QUICK_RUNS} runs of each").parse_args()
    results = choose(arguments.results, quick=arguments.quick, fresh=arguments.fresh, what="start")
    if not KINDS.keys() <= results.cells.keys():
        began = time.monotonic()
        found = measure(QUICK_RUNS if arguments.quick else RUNS)
        seconds = (time.monotonic() - began) / len(KINDS)
        for kind, took in found.items():
            results.add(kind, quartiles(took), seconds)
    for kind in KINDS:
        results.ensure(kind, dict)
    report = summary({kind: results.metrics(kind) for kind in KINDS})
    print(json.dumps(report))
    sys.exit(0 if report["met"] else 1)


if __name__ == "__main__":
    main()
