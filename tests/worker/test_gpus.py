"""Several workers on one host with one GPU."""

from itertools import pairwise
from pathlib import Path

import pytest

from app.database.engines import Database
from app.queue.enums import DeviceClass, JobState
from app.settings import Settings
from tests.job_rows import add_job, attempts, get_state
from tests.waiting import wait_until
from tests.worker.test_job_runner import GOOD
from tests.worker.test_process import Start, start

__all__ = ["start"]

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '0, GPU-8932f937-d72c-4106-c12f-20bd9faed9f6'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.slow  # the small form is in tests/worker/test_slots.py
def test_jobs_on_one_gpu_run_sequentially(
    database: Database, settings: Settings, start: Start
) -> None:
    jobs = [add_job(database, device_class=DeviceClass.GPU) for _ in range(6)]
    for _ in range(2):
        start(*GOOD, devices="auto")
    wait_until(
        lambda: {get_state(database, each) for each in jobs} == {JobState.SUCCEEDED}, seconds=60
    )
    made = [attempt for each in jobs for attempt in attempts(database, each)]
    assert [each.device for each in made] == ["cuda:0"] * len(jobs)
    made.sort(key=lambda each: each.started_at)
    assert all(
        before.ended_at is not None and before.ended_at <= after.started_at
        for before, after in pairwise(made)
    )
    locks = [each.name for each in (settings.work_dir / "devices").iterdir()]
    assert locks == ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6.lock"]
