"""Worker heartbeats: which workers are alive, and which jobs they run."""

from collections.abc import Sequence
from math import inf

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from app.database.base import now
from app.queue.enums import DeviceClass, JobState
from app.queue.fencing import NO_SESSION_SYNC, RunningJob, WorkerIdentity
from app.queue.tables import Job, Worker


def record_heartbeat(
    session: Session, worker: WorkerIdentity, *, draining: bool, devices: Sequence[str]
) -> None:
    """Store that the worker is alive, and the devices it takes jobs for."""
    session.merge(
        Worker(
            id=worker.id,
            host=worker.host,
            boot_id=worker.boot_id,
            pid=worker.pid,
            pid_start=worker.pid_start,
            seen_at=now(),
            draining=draining,
            devices=list(devices),
        )
    )


def has_other_live_worker(
    session: Session, device_class: DeviceClass, *, exclude: WorkerIdentity, lease_seconds: float
) -> bool:
    """Return whether another live worker takes jobs of this device class."""
    devices = select(Worker.devices).where(
        Worker.id != exclude.id, Worker.seen_at > now() - lease_seconds, Worker.draining.is_(False)
    )
    prefix = "cpu" if device_class is DeviceClass.CPU else "cuda"
    return any(name.startswith(prefix) for names in session.scalars(devices) for name in names)


def count_worker_slots(session: Session, *, lease_seconds: float) -> int:
    """Return how many jobs the live workers can run at a time."""
    devices = select(Worker.devices).where(
        Worker.seen_at > now() - lease_seconds, Worker.draining.is_(False)
    )
    return sum(len(names) for names in session.scalars(devices))


def list_running_jobs(session: Session) -> list[RunningJob]:
    """Return every running job with its worker."""
    expired, silent = Job.lease_expires_at < now(), now() - Worker.seen_at
    rows = session.execute(
        select(Job.id, Job.attempt, expired.label("expired"), silent.label("silent"), Worker)
        .outerjoin(Worker, Worker.id == Job.worker)
        .where(Job.state == JobState.RUNNING)
    )
    return [
        RunningJob(
            job_id, attempt, _identity(worker), bool(expired), inf if silent is None else silent
        )
        for job_id, attempt, expired, silent, worker in rows
    ]


def seconds_since_host_heartbeat(session: Session, *, host: str) -> float | None:
    """Return the seconds since the last heartbeat from this host; None without one: workers
    that stopped or died are deleted.
    """
    return session.scalars(
        select(now() - func.max(Worker.seen_at)).where(Worker.host == host)
    ).one()


def delete_stale_workers(
    session: Session, *, stale_after_seconds: float, stopped: WorkerIdentity | None = None
) -> None:
    """Delete workers without a heartbeat for that long, and the one that `stopped`.

    Workers that still own a running job are kept.
    """
    busy = select(Job.worker).where(Job.state == JobState.RUNNING)
    stale = or_(
        Worker.seen_at < now() - stale_after_seconds,
        Worker.id == (stopped.id if stopped else None),
    )
    session.execute(
        delete(Worker).where(stale, Worker.id.not_in(busy)), execution_options=NO_SESSION_SYNC
    )


def _identity(worker: Worker | None) -> WorkerIdentity | None:
    if worker is None:
        return None
    return WorkerIdentity(worker.id, worker.host, worker.boot_id, worker.pid, worker.pid_start)
