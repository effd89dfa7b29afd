"""Broker and database go away and come back: the jobs go on."""

import signal
import time
from pathlib import Path

import pytest

from app.queue.states import AttemptOutcome as Ended
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation, Outcome
from tests.e2e.test_kill import check
from tests.job_rows import add_job, attempts
from tests.servers import PostgresServer, ValkeyServer
from tests.worker.test_run_job import GOOD

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("kind", ["cluster"]),
]


def test_a_broker_that_forgets_everything_loses_no_job(
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
def test_a_training_goes_on_while_the_database_is_down_and_no_point_is_missing(
    install: Install, postgres: PostgresServer, unbroken: Outcome
) -> None:
    installation = install(lease_seconds=5)
    job_id = installation.submit()
    installation.worker()
    installation.worker()
    installation.saw(job_id, "checkpoint", count=2)
    postgres.stop(signal.SIGQUIT)  # at once, as when the machine dies
    time.sleep(8)  # longer than a lease
    postgres.start()
    installation.database.close()
    installation.succeeded(job_id)
    assert [each.outcome for each in attempts(installation.database, job_id)] == [Ended.SUCCEEDED]
    check(installation, job_id, unbroken)
