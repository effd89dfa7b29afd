"""Jobs are claimed while there is room, and no longer once the worker drains."""

import threading
from uuid import UUID

import pytest

from app.db.engines import Database
from app.jobs.states import JobState
from app.resources import Resources
from tests.job_rows import ALICE, add_job, attempts, state
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_run_job import GOOD
from worker.poller import Poller
from worker.run_job import JobRunner
from worker.slots import Slots


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


def poller(resources: Resources, slots: Slots, draining: threading.Event) -> Poller:
    runner = JobRunner(resources, scripted(*GOOD), draining=draining)
    return Poller(resources, ALICE, runner, slots, draining=draining)


def test_a_job_that_waits_is_claimed_and_run(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    slots, draining = Slots(1), threading.Event()
    thread = threading.Thread(target=poller(resources, slots, draining).run)
    thread.start()
    wait_until(lambda: state(database, job_id) is JobState.SUCCEEDED)
    draining.set()
    thread.join(10)
    assert slots.wait_idle(10)


def test_a_slot_that_becomes_free_in_a_drain_claims_nothing(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    draining = threading.Event()

    class LastSlot(Slots):
        """The drain begins while the poller waits for it."""

        def take(self, timeout: float) -> bool:
            taken = super().take(timeout)
            draining.set()
            return taken

    slots = LastSlot(1)
    poller(resources, slots, draining).run()
    assert slots.wait_idle(10)
    assert state(database, job_id) is JobState.QUEUED
    assert attempts(database, job_id) == []
