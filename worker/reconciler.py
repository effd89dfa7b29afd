"""Recovers jobs of dead workers. Any number of workers may reconcile at the same time."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from threading import Event as Flag
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.base import read_clock
from app.database.errors import OUTAGE_ERRORS
from app.drift import schedule as drift
from app.mlflow import repository as mlflow
from app.queue import dispatch, heartbeats, leases
from app.queue.enums import DeviceClass
from app.queue.fencing import RunningJob, WorkerIdentity
from app.resources import Resources
from app.retention.curve_thinning import thin_curves_page
from app.retraining import repository as retraining
from app.sweeps import scheduler
from app.webhooks import repository as webhooks
from worker import process_identity, workdir
from worker.failures import worker_lost_failure
from worker.host_health import HostHealthChecker
from worker.outages import OutageTracker

DEAD_WORKER_SECONDS = 24 * 3600.0
CLOCK_JUMP_SECONDS = 5.0
MAX_CLOCK_READ_SECONDS = 1.0  # a slower response is too imprecise to compare clocks
_SILENT_ROUNDS = 3  # rounds without a heartbeat until a worker counts as silent

log = structlog.get_logger(__name__)


def _device_classes(devices: Sequence[str]) -> set[DeviceClass]:
    """Return the device classes whose jobs these devices can run."""
    return {
        DeviceClass.ANY,
        *(DeviceClass.CPU if name.startswith("cpu") else DeviceClass.GPU for name in devices),
    }


def boot_clock() -> float:
    """Return the seconds since boot. Unlike a monotonic clock, this includes time in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Reconciler:
    """Sends heartbeats, expires leases of dead workers, advances sweeps, redispatches jobs, and
    thins the curves of those that ended.

    Each write repeats its condition in the database, so a stale read does no harm.
    """

    def __init__(
        self,
        resources: Resources,
        identity: WorkerIdentity,
        *,
        draining: Flag,
        devices: Sequence[str],
        host_health: HostHealthChecker,
    ) -> None:
        self._resources = resources
        self._host_health = host_health
        self._settings = resources.settings
        self._identity = identity
        self._draining = draining
        self._devices = devices
        self._stop_requested = Flag()
        self._outages = OutageTracker(log)
        self._healthy_since = time.monotonic()
        self._last_outage_at = -inf  # when the database was last unreachable
        self._round_started_at = boot_clock()
        self._clock_offset: float | None = None  # database clock minus our own

    def run(self) -> None:
        """Run until `stop`, also during a drain: the worker still owns jobs then."""
        while not self._draining.wait(self._settings.reconcile_seconds):
            self.run_once()
        self.run_once()  # announces the drain
        while not self._stop_requested.wait(self._settings.reconcile_seconds):
            self.run_once()
        with suppress(*OUTAGE_ERRORS):
            with self._resources.database.write() as session:
                heartbeats.delete_stale_workers(
                    session, stale_after_seconds=DEAD_WORKER_SECONDS, stopped=self._identity
                )
            self._redispatch()  # the jobs that this worker requeued

    def stop(self) -> None:
        """End `run`."""
        self._stop_requested.set()

    def run_once(self) -> None:
        """Run one round. Errors are only logged, so that the rounds go on."""
        self._detect_pause()
        outage = None
        for step in (
            self._recover_attempts,
            self._advance_sweeps,
            self._redispatch,
            self._thin_curves,
        ):
            try:
                step()
            except OUTAGE_ERRORS as error:
                outage = error
                self._healthy_since = self._last_outage_at = time.monotonic()
            except Exception:
                log.exception("reconciliation failed", step=step.__name__)
        self._outages.record_result(outage)

    def _recover_attempts(self) -> None:
        self._send_heartbeat()
        # List directories before jobs: an attempt that starts in between must not look dead.
        attempt_dirs = list(workdir.list_attempt_dirs(self._settings))
        with self._resources.database.read() as session:
            running = heartbeats.list_running_jobs(session)
        self._clean_up(
            attempt_dirs,
            {(job.job_id, job.attempt) for job in running if not self._expire(job)},
        )

    def _advance_sweeps(self) -> None:
        """Advance sweeps whose worker died before it could, or for which new workers arrived."""
        scheduler.advance_running_sweeps(self._resources)

    def _redispatch(self) -> None:
        """Send the tasks of waiting jobs, and fail jobs that have waited too long."""
        uses_broker = self._settings.broker_url is not None  # without one, workers poll
        if not uses_broker and self._settings.max_queue_seconds is None:
            return
        with self._resources.database.write() as session:
            for job_id in self._fail_overdue(session):
                log.warning("job timed out in the queue", job_id=str(job_id))
            seconds = self._settings.redispatch_seconds
            due = (
                dispatch.take_due_for_dispatch(session, redispatch_seconds=seconds)
                if uses_broker
                else []
            )
        for task in due:
            self._resources.notifier.send(task)

    def _thin_curves(self) -> None:
        """Thin the curves of jobs that have ended, one page per round. `gc` thins all of them."""
        thin_curves_page(self._resources.database, max_points=self._settings.keep_curve_points)

    def _fail_overdue(self, session: Session) -> list[UUID]:
        """Fail jobs that exceed the queue limit. Time in a database outage is excluded."""
        limit = self._settings.max_queue_seconds
        if limit is None or time.monotonic() - self._last_outage_at < limit:
            return []
        return dispatch.fail_queue_timeouts(session, queue_seconds=limit)

    def _detect_pause(self) -> None:
        """Detect that this machine or process was suspended.

        Other workers on this machine may not have renewed their leases either.
        """
        now = boot_clock()
        if (
            now - self._round_started_at
            > self._settings.lease_seconds - self._settings.heartbeat_seconds
        ):
            self._healthy_since = time.monotonic()
        self._round_started_at = now

    def _send_heartbeat(self) -> None:
        devices = () if self._host_health.find_problem_without_store_check() else self._devices
        with self._resources.database.write() as session:
            heartbeats.record_heartbeat(
                session, self._identity, draining=self._draining.is_set(), devices=devices
            )
            heartbeats.delete_stale_workers(session, stale_after_seconds=DEAD_WORKER_SECONDS)
            if devices and not self._draining.is_set():
                dispatch.clear_waiting_for_storage(session, _device_classes(devices))
            read_at = boot_clock()
            database_now = read_clock(session)
            elapsed = boot_clock() - read_at
        if elapsed <= MAX_CLOCK_READ_SECONDS:
            self._detect_database_clock_jump(database_now - read_at)

    def _detect_database_clock_jump(self, offset: float) -> None:
        if self._clock_offset is not None and abs(offset - self._clock_offset) > CLOCK_JUMP_SECONDS:
            log.warning("the database clock jumped", seconds=offset - self._clock_offset)
            self._healthy_since = time.monotonic()
            self._reset_waits()
        self._clock_offset = offset

    def _reset_waits(self) -> None:
        with self._resources.database.write() as session:
            dispatch.make_all_queued_jobs_due(session)
            webhooks.make_all_pending_deliveries_due(session)
            mlflow.make_waiting_rows_due(session)
            retraining.release_claims_after_clock_step(session, self._settings)
            drift.end_claims_after_clock_step(session, self._settings)

    def _expire(self, job: RunningJob) -> bool:
        """Expire a job's lease: at once if its worker on this machine is dead, else when overdue.

        After an outage of the database or a jump of its clock, leases and workers may only look
        stale, so they get time to renew. Return whether the lease was expired.
        """
        healthy = time.monotonic() - self._healthy_since
        silent = min(job.seconds_since_heartbeat, healthy) > (
            _SILENT_ROUNDS * self._settings.reconcile_seconds
        )
        dead = job.owner is not None and process_identity.is_worker_known_dead(
            job.owner, silent=silent
        )
        if not dead and (healthy < self._settings.lease_seconds or not job.lease_expired):
            return False
        with self._resources.database.write() as session:
            expired = leases.expire_attempt(
                session,
                job.job_id,
                attempt=job.attempt,
                failure=worker_lost_failure(self._settings),
                max_failures=self._settings.max_failures,
                dead_worker=job.owner.id if dead and job.owner else None,
            )
        if expired:
            log.warning(
                "recovered the job of a lost worker", job_id=str(job.job_id), attempt=job.attempt
            )
        return expired

    def _clean_up(
        self, attempt_dirs: list[workdir.AttemptDir], running: set[tuple[object, int]]
    ) -> None:
        """Kill processes of attempts that are over, and remove their directories."""
        for attempt_dir in attempt_dirs:
            if (attempt_dir.job_id, attempt_dir.attempt) in running:
                continue
            try:
                boot_id, pid, start = json.loads(attempt_dir.pid_file.read_bytes())
                process_identity.kill_group(process_identity.ProcessIdentity(boot_id, pid, start))
            except (OSError, ValueError):
                log.debug("no process to kill", directory=str(attempt_dir.path))
            attempt_dir.remove()
