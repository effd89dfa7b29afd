"""Looks for a job whenever a slot is free."""

import threading
from threading import Event as Flag

import structlog

from app.jobs import ownership
from app.jobs.leases import Claimed, Owner
from app.jobs.states import Lane
from app.resources import Resources
from worker.run_job import JobRunner
from worker.slots import Slots

log = structlog.get_logger(__name__)


class Poller:
    """Claims jobs of every lane: one worker serves the whole machine."""

    def __init__(
        self, resources: Resources, owner: Owner, runner: JobRunner, slots: Slots, *, draining: Flag
    ) -> None:
        self._resources = resources
        self._owner = owner
        self._runner = runner
        self._slots = slots
        self._draining = draining

    def run(self) -> None:
        """Until the worker drains. A database that does not answer is asked again later."""
        poll_seconds = self._resources.settings.poll_seconds
        while not self._draining.is_set():
            if not self._slots.take(poll_seconds):
                continue
            # Asked again with the slot in hand: who waits for the last one to come back must not
            # leave while another job is claimed.
            claimed = None if self._draining.is_set() else self._claim()
            if claimed is None:
                self._slots.give()
                self._draining.wait(poll_seconds)
            else:
                name = f"job-{claimed.lease.job_id}"
                threading.Thread(target=self._work, args=(claimed,), name=name, daemon=True).start()

    def _claim(self) -> Claimed | None:
        try:
            with self._resources.database.write() as session:
                claimed = ownership.claim(
                    session,
                    owner=self._owner,
                    lanes=set(Lane),
                    lease_seconds=self._resources.settings.lease_seconds,
                )
                session.commit()
                return claimed
        except Exception:
            log.exception("no job could be claimed")
            return None

    def _work(self, claimed: Claimed) -> None:
        try:
            self._runner.run(claimed)
        except Exception:
            log.exception("the ending of a job could not be written")
        finally:
            self._slots.give()
