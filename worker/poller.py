"""Runs jobs in the slots of a worker: those that Celery delivers, and those found by polling."""

import threading
import time
from contextlib import suppress
from math import inf
from threading import Event as Flag
from uuid import UUID

import structlog

from app.database.errors import OUTAGE_ERRORS
from app.errors import AppError
from app.queue import dispatch, heartbeats, leases
from app.queue.enums import DeviceClass, JobState
from app.queue.fencing import ClaimedJob, WorkerIdentity
from app.queue.tables import Job
from app.queue.transitions import Preempted
from app.resources import Resources
from worker import finalize
from worker.devices import Slot, SlotPool
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner
from worker.outages import OutageTracker

_PROBLEM_NOTE_SECONDS = 5.0  # between two updates of the jobs that a host problem keeps waiting
# With a broker, a free slot waits this long for a task before a job is polled for: jobs that were
# found by polling run as well, but Celery does not show them.
TASK_HEAD_START_SECONDS = 1.0
_SLOT_WAIT_SECONDS = 1.0  # between two looks of a waiting task, at the draining worker among others

log = structlog.get_logger(__name__)


class Poller:
    """Claims jobs for the devices of this worker.

    A job that was polled for runs in a thread of its own, one that Celery delivered in the thread
    of its task. Both take slots from the same pool.
    """

    def __init__(
        self,
        resources: Resources,
        identity: WorkerIdentity,
        runner: JobRunner,
        slots: SlotPool,
        *,
        draining: Flag,
        host_health: HostHealthChecker,
    ) -> None:
        self._resources = resources
        self._host_health = host_health
        self._identity = identity
        self._runner = runner
        self._slots = slots
        self._draining = draining
        self._wake_event = threading.Event()
        settings = resources.settings
        self._poll_seconds = settings.poll_seconds or (15.0 if settings.broker_url else 1.0)
        self._head_start_seconds = (
            min(TASK_HEAD_START_SECONDS, self._poll_seconds) if settings.broker_url else 0.0
        )
        self._outages = OutageTracker(log)
        self._problem: str | None = None  # code of this host's problem at the last check
        self._shown_at: dict[DeviceClass, float] = {}  # when it was last written to jobs

    def wake(self) -> None:
        """Poll now: a slot has become free, or the worker drains."""
        self._wake_event.set()

    def run(self) -> None:
        """Poll until the worker drains. After an outage of the database, poll again later."""
        while not self._draining.wait(self._head_start_seconds):
            try:
                with suppress(*OUTAGE_ERRORS):
                    self._fill_slots()
            except Exception:
                log.exception("failed to claim a job")
            self._wake_event.wait(self._poll_seconds)
            self._wake_event.clear()  # before the check above, or a drain could go unnoticed

    def wait_for_slot_and_run_job(self, job_id: UUID) -> None:
        """Run this job in the calling thread once a slot of its class is free, if it is due then.

        Returns once it is not in the queue: it has ended, or another worker runs it. Waits while
        all slots are busy or no job can run on this host, so that further tasks stay in the
        broker for other workers. Returns when the worker drains. Raises `OUTAGE_ERRORS` if the
        database is unreachable before the job has started.
        """
        unfit: set[DeviceClass] = set()  # device classes for which it cannot be claimed
        while unfit != self._slots.device_classes() and not self._draining.is_set():
            if not self._is_queued(job_id):
                return
            slot = self._slots.try_acquire(exclude=unfit)
            if slot is None:
                self._slots.wait_for_release(_SLOT_WAIT_SECONDS)
                continue
            claimed = None
            try:
                able = self._may_claim(slot)
                claimed = self._claim(slot, job_id) if able else None
            finally:
                if claimed is None:
                    self._slots.release(slot)
            if claimed is not None:
                self._run_claimed(claimed, slot)
                return
            if able:
                unfit.add(slot.device_class)
            else:
                self._draining.wait(_SLOT_WAIT_SECONDS)

    def _is_queued(self, job_id: UUID) -> bool:
        with self._outages.tracking_outage(), self._resources.database.read() as session:
            job = session.get(Job, job_id)
            return job is not None and job.state == JobState.QUEUED

    def _fill_slots(self) -> None:
        """Start jobs until no slot is free or no job is queued for the free slots."""
        idle: set[DeviceClass] = set()  # device classes without a queued job
        while (slot := self._slots.try_acquire(exclude=idle)) is not None:
            if not self._start_job(slot):
                idle.add(slot.device_class)

    def _start_job(self, slot: Slot) -> bool:
        """Start a job in the slot, or release the slot. Return whether there was a job."""
        started = False
        try:
            claimed = self._claim(slot) if self._may_claim(slot) else None
            if claimed is not None:
                self._run_in_thread(claimed, slot)
                started = True
        finally:
            if not started:
                self._slots.release(slot)
        return started

    def _may_claim(self, slot: Slot) -> bool:
        """Return whether the slot may claim a job: not if the worker drains or the host is unfit,
        which is logged and shown on jobs.

        The slot must be held: `wait_idle` must not return while another job is being claimed.
        """
        if self._draining.is_set():
            return False
        problem = self._host_health.find_problem()
        self._report_host_problem(problem, slot.device_class)
        return problem is None

    def _report_host_problem(self, problem: AppError | None, device_class: DeviceClass) -> None:
        """Log when a problem begins or ends, and show it on jobs that no other worker could run."""
        previous, self._problem = self._problem, problem.code if problem else None
        if problem is None:
            if previous is not None:
                log.info("claiming jobs again")
            return
        if previous != self._problem:
            log.warning("not claiming jobs", code=problem.code, reason=str(problem))
        if time.monotonic() - self._shown_at.get(device_class, -inf) >= _PROBLEM_NOTE_SECONDS:
            with self._outages.tracking_outage():
                self._show_on_jobs(problem, device_class)
            self._shown_at[device_class] = time.monotonic()

    def _show_on_jobs(self, problem: AppError, device_class: DeviceClass) -> None:
        """Write the problem to the queued jobs that no other worker could run."""
        if device_classes := self._unserved_classes(device_class):
            with self._resources.database.write() as session:
                dispatch.mark_waiting_for_storage(session, device_classes, message=str(problem))

    def _unserved_classes(self, device_class: DeviceClass) -> list[DeviceClass]:
        """Return the device classes of this worker whose jobs no other worker could run."""
        seconds = self._resources.settings.lease_seconds
        with self._resources.database.read() as session:
            other_workers = {
                each: heartbeats.has_other_live_worker(
                    session, each, exclude=self._identity, lease_seconds=seconds
                )
                for each in (DeviceClass.CPU, DeviceClass.GPU)
            }
        if other_workers[device_class]:
            return []
        return [device_class] if any(other_workers.values()) else [device_class, DeviceClass.ANY]

    def _claim(self, slot: Slot, job_id: UUID | None = None) -> ClaimedJob | None:
        with self._outages.tracking_outage(), self._resources.database.write() as session:
            return leases.claim_job(
                session,
                owner=self._identity,
                device_class=slot.device_class,
                device=slot.device,
                lease_seconds=self._resources.settings.lease_seconds,
                job_id=job_id,
            )

    def _run_in_thread(self, claimed: ClaimedJob, slot: Slot) -> None:
        """Run a job in a new thread. If none can be started, requeue the job."""
        name = f"job-{claimed.lease.job_id}"
        thread = threading.Thread(
            target=self._run_claimed, args=(claimed, slot), name=name, daemon=True
        )
        try:
            thread.start()
        except Exception:
            finalize.finish_attempt_without_artifact(self._resources, claimed.lease, Preempted())
            raise

    def _run_claimed(self, claimed: ClaimedJob, slot: Slot) -> None:
        try:
            self._runner.run(claimed, slot)
        except Exception:
            log.exception("failed to record the result of a job")
        finally:
            self._slots.release(slot)
            self.wake()
