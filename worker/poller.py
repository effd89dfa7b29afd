"""Looks for a job whenever a slot is free."""

import threading
import time
from contextlib import suppress
from math import inf
from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE
from app.errors import AppError
from app.queue import dispatch, heartbeats, leases
from app.queue.fencing import Claimed, Owner
from app.queue.states import Lane
from app.queue.transitions import Preempted
from app.resources import Resources
from worker import finalize
from worker.db_retry import Contact
from worker.devices import Slot, Slots
from worker.host_health import HostCheck
from worker.run_job import JobRunner
from worker.spawn import Warm

NOTE_SECONDS = 5.0  # between two looks for jobs that have come since

log = structlog.get_logger(__name__)


class Poller:
    """Claims jobs for the devices of this worker, and runs each in a thread of its own."""

    def __init__(
        self,
        resources: Resources,
        owner: Owner,
        runner: JobRunner,
        slots: Slots,
        *,
        draining: Flag,
        host: HostCheck | None = None,
    ) -> None:
        self._resources = resources
        self._host = host or HostCheck(resources)
        self._owner = owner
        self._runner = runner
        self._slots = slots
        self._draining = draining
        self._bell = threading.Event()
        settings = resources.settings
        self._pause = settings.poll_seconds or (15.0 if settings.broker_url else 1.0)  # seconds
        self._contact = Contact(log)
        self._trouble: str | None = None  # of this machine, as it was told last
        self._noted_at: dict[Lane, float] = {}  # when it was last shown on jobs

    def wake(self) -> None:
        """Look now: a job waits, or there is room for one."""
        self._bell.set()

    def run(self) -> None:
        """Until the worker drains. A database that does not answer is asked again later."""
        while not self._draining.is_set():
            self._bell.clear()
            try:
                with suppress(*OUTAGE):
                    self._fill()
            except Exception:
                log.exception("no job could be claimed")
            self._bell.wait(self._pause)

    def _fill(self) -> None:
        """Give each free slot a job, as long as there are any for it."""
        idle: set[Lane] = set()  # where no job waits
        while (slot := self._slots.take(but=idle)) is not None:
            if not self._start(slot):
                idle.add(slot.lane)

    def _start(self, slot: Slot) -> bool:
        """Whether there was a job. The slot is given back when none runs in it."""
        started = False
        try:
            claimed = self._take(slot)
            if claimed is not None:
                self._run_apart(claimed, slot)
                started = True
        finally:
            if not started:
                self._slots.give(slot)
        return started

    def _take(self, slot: Slot) -> Claimed | None:
        """A job for this slot. Asked with the slot in hand: who waits for the last one to come back
        must not leave while another job is claimed.
        """
        unfit = self._draining.is_set() or self._leaves(slot.lane)
        return None if unfit else self._claim(slot)

    def _leaves(self, lane: Lane) -> bool:
        """Whether jobs are left alone, because none could run here now. Where no other worker could
        run them either they show what they wait for.
        """
        trouble, told = self._host.look(), self._trouble
        self._trouble = trouble.code if trouble else None
        if trouble is None:
            if told is not None:
                log.info("jobs are claimed again")
            return False
        if told != self._trouble:
            log.warning("jobs are left to other workers", code=trouble.code, reason=str(trouble))
        if time.monotonic() - self._noted_at.get(lane, -inf) >= NOTE_SECONDS:
            with self._contact.trying():
                self._note(trouble, lane)
            self._noted_at[lane] = time.monotonic()
        return True

    def _note(self, trouble: AppError, lane: Lane) -> None:
        """Show it on the jobs that are left alone."""
        if lanes := self._left_alone(lane):
            with self._resources.database.write() as session:
                dispatch.note_trouble(session, lanes, message=str(trouble))
                session.commit()

    def _left_alone(self, lane: Lane) -> list[Lane]:
        """Lanes of this worker whose queued jobs no other one could run."""
        seconds = self._resources.settings.lease_seconds
        with self._resources.database.read() as session:
            served = {
                each: heartbeats.others(session, each, but=self._owner, lease_seconds=seconds)
                for each in (Lane.CPU, Lane.GPU)
            }
        if served[lane]:
            return []
        return [lane] if any(served.values()) else [lane, Lane.ANY]

    def _claim(self, slot: Slot) -> Claimed | None:
        with self._contact.trying(), self._resources.database.write() as session:
            claimed = leases.claim(
                session,
                owner=self._owner,
                lane=slot.lane,
                device=slot.device,
                lease_seconds=self._resources.settings.lease_seconds,
            )
            session.commit()
            return claimed

    def _run_apart(self, claimed: Claimed, slot: Slot) -> None:
        """In a thread of its own. Where there can be no more of them, the job waits again."""
        name = f"job-{claimed.lease.job_id}"
        thread = threading.Thread(target=self._work, args=(claimed, slot), name=name, daemon=True)
        try:
            thread.start()
        except Exception:
            finalize.finish(self._resources, claimed.lease, Preempted())
            raise

    def _work(self, claimed: Claimed, slot: Slot) -> None:
        """Run a job; as long as its process waits for another one, run what comes next, too."""
        warm = Warm()
        following: Claimed | None = claimed
        try:
            while following is not None:
                self._run(following, slot, warm)
                following = self._next(slot) if warm else None
        finally:
            warm.close()
            self._slots.give(slot)
            self.wake()

    def _run(self, claimed: Claimed, slot: Slot, warm: Warm) -> None:
        try:
            self._runner.run(claimed, slot, warm)
        except Exception:
            log.exception("the ending of a job could not be written")

    def _next(self, slot: Slot) -> Claimed | None:
        """Whatever is the next job for this slot: cells of a sweep go before nobody."""
        with suppress(*OUTAGE):
            return self._take(slot)
        return None
