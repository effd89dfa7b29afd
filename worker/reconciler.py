"""Puts right what dead workers left behind. Any number of workers may do so at once."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from threading import Event as Flag
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database import clock
from app.database.errors import OUTAGE
from app.queue import dispatch, heartbeats, leases
from app.queue.fencing import Held, Owner
from app.queue.states import Lane
from app.resources import Resources
from app.sweeps import add_trials
from worker import process_identity, workdir
from worker.db_retry import Contact
from worker.failures import lost
from worker.host_health import HostCheck

FORGET_SECONDS = 24 * 3600.0
CLOCK_JUMP_SECONDS = 5.0
CLOCK_LOOK_SECONDS = 1.0  # an answer that took longer says too little about the clock
SILENT_ROUNDS = 3  # without a sign of life

log = structlog.get_logger(__name__)


def _lanes(devices: Sequence[str]) -> set[Lane]:
    """Whose jobs they can run."""
    return {Lane.ANY, *(Lane.CPU if name.startswith("cpu") else Lane.GPU for name in devices)}


def own_clock() -> float:
    """Seconds since the start of the machine. They go on while it sleeps, as the database does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Reconciler:
    """Each step repeats its condition in the database, so a stale look does no harm."""

    def __init__(
        self,
        resources: Resources,
        owner: Owner,
        *,
        draining: Flag,
        devices: Sequence[str],
        host: HostCheck | None = None,
    ) -> None:
        self._resources = resources
        self._host = host or HostCheck(resources)
        self._settings = resources.settings
        self._owner = owner
        self._draining = draining
        self._devices = devices
        self._left = Flag()
        self._contact = Contact(log)
        self._healthy_since = time.monotonic()
        self._outage_at = -inf  # when the database last did not answer
        self._began_at = own_clock()  # of the last round
        self._offset: float | None = None  # database clock minus our own

    def run(self) -> None:
        """Until the worker leaves. In a drain it is still alive, and holds jobs."""
        while not self._draining.wait(self._settings.reconcile_seconds):
            self.tick()
        self.tick()  # which tells that it drains
        while not self._left.wait(self._settings.reconcile_seconds):
            self.tick()
        with suppress(*OUTAGE), self._resources.database.write() as session:
            heartbeats.forget(session, silent_seconds=FORGET_SECONDS, left=self._owner)
            session.commit()

    def leave(self) -> None:
        """End `run`."""
        self._left.set()

    def tick(self) -> None:
        """One round. It must go on whatever happens, so errors are only logged."""
        self._notice_a_standstill()
        outage = None
        for step in (self._put_right, self._go_on, self._remind):
            try:
                step()
            except OUTAGE as error:
                outage = error
                self._healthy_since = self._outage_at = time.monotonic()
            except Exception:
                log.exception("reconciling failed", step=step.__name__)
        self._contact.tell(outage)

    def _put_right(self) -> None:
        self._announce()
        places = list(workdir.found(self._settings))  # before the look at the jobs
        with self._resources.database.read() as session:
            running = heartbeats.running(session)
        self._sweep(
            places, {(held.job_id, held.attempt) for held in running if not self._expire(held)}
        )

    def _go_on(self) -> None:
        """With the sweeps of workers that died before they could, or for workers that came."""
        add_trials.all_of_them(self._resources)

    def _remind(self) -> None:
        """Tell the workers of what waits, and end what has waited for too long."""
        told = self._settings.broker_url is not None  # without one they look by themselves
        if not told and self._settings.queue_seconds is None:
            return
        with self._resources.database.write() as session:
            for job_id in self._fail_overdue(session):
                log.warning("a job waited for too long", job_id=str(job_id))
            seconds = self._settings.hint_seconds
            due = dispatch.take_due(session, hint_seconds=seconds) if told else []
            session.commit()
        for job_id, lane in due:
            self._resources.queue.hint(job_id, lane=lane)

    def _fail_overdue(self, session: Session) -> list[UUID]:
        """A time in the queue that was an outage of the database is not held against a job."""
        limit = self._settings.queue_seconds
        if limit is None or time.monotonic() - self._outage_at < limit:
            return []
        return dispatch.fail_overdue(session, queue_seconds=limit)

    def _notice_a_standstill(self) -> None:
        """Of the machine or of this process. Other workers here perhaps renewed no lease either."""
        now = own_clock()
        if now - self._began_at > self._settings.lease_seconds - self._settings.beat_seconds:
            self._healthy_since = time.monotonic()
        self._began_at = now

    def _announce(self) -> None:
        devices = () if self._host.trouble() else self._devices
        with self._resources.database.write() as session:
            heartbeats.announce(
                session, self._owner, draining=self._draining.is_set(), devices=devices
            )
            heartbeats.forget(session, silent_seconds=FORGET_SECONDS)
            if devices and not self._draining.is_set():
                dispatch.forget_trouble(session, _lanes(devices))
            asked_at = own_clock()
            database_now = clock.read_clock(session)
            took = own_clock() - asked_at
            session.commit()
        if took <= CLOCK_LOOK_SECONDS:
            self._watch_clock(database_now - asked_at)

    def _watch_clock(self, offset: float) -> None:
        if self._offset is not None and abs(offset - self._offset) > CLOCK_JUMP_SECONDS:
            log.warning("the clock of the database jumped", seconds=offset - self._offset)
            self._healthy_since = time.monotonic()
            self._forget_waits()
        self._offset = offset

    def _forget_waits(self) -> None:
        with self._resources.database.write() as session:
            dispatch.make_all_due(session)
            session.commit()

    def _expire(self, held: Held) -> bool:
        """A worker of this machine that is gone loses its jobs now; any other one with its lease.

        After an outage of the database or a jump of its clock, leases and workers that only look
        old get the time to tell that they are not.
        """
        healthy = time.monotonic() - self._healthy_since
        silent = min(held.silent_seconds, healthy) > (
            SILENT_ROUNDS * self._settings.reconcile_seconds
        )
        gone = held.owner is not None and process_identity.gone(held.owner, silent=silent)
        if not gone and (healthy < self._settings.lease_seconds or not held.overdue):
            return False
        with self._resources.database.write() as session:
            expired = leases.expire(
                session,
                held.job_id,
                seen_attempt=held.attempt,
                lost=lost(self._settings),
                max_failures=self._settings.max_failures,
                gone=held.owner.id if gone and held.owner else None,
            )
            session.commit()
        if expired:
            log.warning("a lost job was taken back", job_id=str(held.job_id), attempt=held.attempt)
        return expired

    def _sweep(self, places: list[workdir.Place], running: set[tuple[object, int]]) -> None:
        """Kill what still runs for attempts that are over, and remove their directories."""
        for place in places:
            if (place.job_id, place.attempt) in running:
                continue
            try:
                boot_id, pid, start = json.loads(place.child.read_bytes())
                process_identity.kill_group(process_identity.Process(boot_id, pid, start))
            except (OSError, ValueError):
                log.debug("no process to kill", directory=str(place.directory))
            workdir.clear(place.directory)
