"""The overhead of a sweep: `python -m benchmarks.sweep.overhead`.

576 trials whose trainings end at once, by one worker in a process of its own, over SQLite. Prints
one JSON object of milliseconds a trial: `start_ms` to expand, check and store them; `trial_ms`
for all that is done about a trial but to train it: claim, order, record, store, end, go on; and
`advance_ms`, of these to go on.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select, update

from app.database import migrations
from app.jobs.repository import FINAL_STATES
from app.queue.enums import JobState
from app.queue.tables import Job
from app.resources import Resources, open_resources
from app.settings import Settings
from app.sweeps import scheduler
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep
from benchmarks.machine import processor
from tests import sweep_rows

ROOT = Path(__file__).parents[2]
JOB = {"method": {"type": "lora", "targets": ["query", "value"]}}
SPACE = {
    "method.alpha": [1, 4, 8, 16, 32, 64],
    "method.r": [1, 2, 4, 8, 16, 32],
    "runtime.seed": list(range(16)),
}
TRIALS = 576


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), min_free_bytes=0, poll_seconds=0.05)
        migrations.upgrade(settings)
        resources = open_resources(settings)
        began = time.perf_counter()
        sweep_id = sweep_rows.start(resources, job=JOB, space=SPACE)
        started = time.perf_counter() - began
        looked = _advance_alone(resources, sweep_id)
        trials = _work(settings, lambda: _finished(resources, sweep_id))
        with resources.database.read() as session:  # what fails takes another time
            assert set(session.scalars(select(Job.state))) == {JobState.SUCCEEDED}
        resources.close()
    per_trial = {"start_ms": started, "trial_ms": trials}
    milliseconds = {name: round(1000 * seconds / TRIALS, 2) for name, seconds in per_trial.items()}
    print(
        json.dumps(
            {
                "trials": TRIALS,
                **milliseconds,
                "advance_ms": round(1000 * looked, 2),
                "processor": processor(),
            }
        )
    )


def _work(settings: Settings, done: Callable[[], bool]) -> float:
    """Seconds until it is done, from the start of the worker's first trial."""
    child = str(ROOT / "tests" / "worker" / "worker_process.py")
    environment = os.environ | {
        "LORAWORKS_DATA_DIR": str(settings.data_dir),
        "LORAWORKS_MIN_FREE_BYTES": "0",
        "PYTHONPATH": str(ROOT),
    }
    worker = subprocess.Popen(
        [sys.executable, child, "started:4", "steps:4", "trial"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        began: float | None = None
        while not done():
            if began is None and _ended(settings):
                began = time.perf_counter()
            time.sleep(0.05)
        return time.perf_counter() - (began or 0.0)
    finally:
        worker.terminate()
        worker.wait()


def _ended(settings: Settings) -> bool:
    resources = open_resources(settings)
    with resources.database.read() as session:
        count = session.scalars(select(func.count()).where(Job.state.in_(FINAL_STATES))).one()
    resources.close()
    return count > 0


def _finished(resources: Resources, sweep_id: UUID) -> bool:
    return sweep_rows.sweep_state(resources, sweep_id) is SweepState.FINISHED


def _advance_alone(resources: Resources, sweep_id: UUID, times: int = 50) -> float:
    """Seconds of one look at a sweep whose slots are taken: what each end of a job costs."""
    with resources.database.write() as session:
        session.execute(update(Sweep).values(max_parallel_jobs=1))
    began = time.perf_counter()
    for _ in range(times):
        scheduler.advance_sweep_in_batches(
            resources.database,
            sweep_id,
            settings=resources.settings,
            notifier=resources.notifier,
        )
    return (time.perf_counter() - began) / times


if __name__ == "__main__":
    main()
