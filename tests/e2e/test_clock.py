"""Wrong or jumping clocks expire no lease and delay no job."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.queue.enums import AttemptOutcome as Ended
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation
from tests.job_rows import add_job, attempts, get_job
from tests.shifted_clock import VARIABLE, ShiftedClock
from tests.waiting import wait_until
from tests.worker.test_job_runner import GOOD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HOUR = 3600.0


@pytest.fixture
def moved(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Installation, ShiftedClock]]:
    """An installation with a clock that can be shifted."""
    installation = install(lease_seconds=3)
    file = tmp_path / "shift"
    clock = ShiftedClock(file, installation.database_url)
    monkeypatch.setenv(VARIABLE, str(file))
    installation.database.close()  # connections from now on see the new clock
    yield installation, clock
    clock.remove()


@pytest.mark.parametrize(
    ("kind", "jump"),
    [
        ("embedded", HOUR),
        pytest.param("cluster", -HOUR, marks=pytest.mark.slow),
        pytest.param("embedded", -HOUR, marks=pytest.mark.slow),
        pytest.param("cluster", HOUR, marks=pytest.mark.slow),
    ],
)
def test_jumping_database_clock_ends_no_lease(
    moved: tuple[Installation, ShiftedClock], tmp_path: Path, jump: float
) -> None:
    installation, clock = moved
    go = tmp_path / "go"
    job_id = add_job(installation.database)
    for _ in range(2):
        installation.worker("started:5", "steps:2", f"until:{go}", *GOOD)
    installation.saw(job_id, "training")
    waiting = add_job(installation.database)
    clock.shift(jump)
    later = add_job(installation.database)
    lease = get_job(installation.database, job_id).lease_expires_at
    wait_until(
        lambda: get_job(installation.database, job_id).lease_expires_at != lease, what="a beat"
    )
    go.touch()
    installation.succeeded(job_id, waiting, later)
    outcomes = [each.outcome for each in attempts(installation.database, job_id)]
    assert outcomes == [Ended.SUCCEEDED]


@pytest.mark.slow  # the test above is similar
@pytest.mark.parametrize(
    ("kind", "skew"), [("embedded", HOUR), pytest.param("cluster", -HOUR, marks=pytest.mark.slow)]
)
def test_worker_clock_skew_has_no_effect(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "right, right_ns = time.time, time.time_ns\n"
        f"time.time = lambda: right() + {skew}\n"
        f"time.time_ns = lambda: right_ns() + int({skew} * 1e9)\n"
    )
    job_id = add_job(installation.database)
    other = add_job(installation.database)
    with monkeypatch.context() as patch:
        path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        patch.setenv("PYTHONPATH", path)
        installation.worker("started:5", "steps:5", "sleep:5", *GOOD)
    installation.worker("started:5", "steps:5", "sleep:5", *GOOD)
    installation.succeeded(job_id, other)
    for each in (job_id, other):
        assert [a.outcome for a in attempts(installation.database, each)] == [Ended.SUCCEEDED]
