"""Outages of broker and database: jobs continue."""

import signal
import time
from pathlib import Path

import pytest

from app.queue.enums import AttemptOutcome as Ended
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation, Outcome
from tests.e2e.test_kill import check
from tests.job_rows import add_job, attempts
from tests.servers import PostgresServer, ValkeyServer
from tests.worker.test_job_runner import GOOD

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("kind", ["cluster"]),
]


@pytest.mark.slow  # the small form is in tests/worker/test_celery.py
def test_broker_data_loss_loses_no_job(
    installation: Installation, valkey: ValkeyServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    jobs = [add_job(installation.database) for _ in range(4)]  # two wait
    for _ in range(2):
        installation.worker("started:5", f"until:{go}", *GOOD)
    for job_id in jobs[:2]:
        installation.saw(job_id, "training")
    valkey.flush()
    valkey.restart()
    go.touch()
    installation.succeeded(*jobs)
    for job_id in jobs:
        assert [each.outcome for each in attempts(installation.database, job_id)] == [
            Ended.SUCCEEDED
        ]


@pytest.mark.slow  # the small forms are in tests/worker/test_recorder.py
def test_training_survives_a_database_outage_without_missing_points(
    install: Install, postgres: PostgresServer, uninterrupted: Outcome
) -> None:
    installation = install(lease_seconds=5)
    job_id = installation.submit()
    installation.worker()
    installation.worker()
    installation.saw(job_id, "checkpoint", count=2)
    postgres.stop(signal.SIGQUIT)  # immediately, as in a crash
    time.sleep(8)  # longer than a lease
    postgres.start()
    installation.database.close()
    installation.succeeded(job_id)
    assert [each.outcome for each in attempts(installation.database, job_id)] == [Ended.SUCCEEDED]
    check(installation, job_id, uninterrupted)
