"""Which workers there are, and what they hold, as the reconciler of any of them sees it."""

from collections.abc import Sequence
from math import inf

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from app.database.clock import now
from app.queue.fencing import UNSYNCED, Held, Owner
from app.queue.states import JobState, Lane
from app.queue.tables import Job, Worker


def announce(session: Session, owner: Owner, *, draining: bool, devices: Sequence[str]) -> None:
    """Say that the worker is alive, and for which devices it takes jobs."""
    session.merge(
        Worker(
            id=owner.id,
            host=owner.host,
            boot_id=owner.boot_id,
            pid=owner.pid,
            pid_start=owner.pid_start,
            seen_at=now(),
            draining=draining,
            devices=list(devices),
        )
    )


def others(session: Session, lane: Lane, *, but: Owner, lease_seconds: float) -> bool:
    """Whether another worker is there for the jobs of a lane."""
    devices = select(Worker.devices).where(
        Worker.id != but.id, Worker.seen_at > now() - lease_seconds, Worker.draining.is_(False)
    )
    kind = "cpu" if lane is Lane.CPU else "cuda"
    return any(name.startswith(kind) for names in session.scalars(devices) for name in names)


def slots(session: Session, *, lease_seconds: float) -> int:
    """How many jobs the workers that are there can run at a time."""
    devices = select(Worker.devices).where(
        Worker.seen_at > now() - lease_seconds, Worker.draining.is_(False)
    )
    return sum(len(names) for names in session.scalars(devices))


def running(session: Session) -> list[Held]:
    """Every running job with its worker."""
    overdue, silent = Job.lease_expires_at < now(), now() - Worker.seen_at
    rows = session.execute(
        select(Job.id, Job.attempt, overdue.label("overdue"), silent.label("silent"), Worker)
        .outerjoin(Worker, Worker.id == Job.worker)
        .where(Job.state == JobState.RUNNING)
    )
    return [
        Held(job_id, attempt, _owner(worker), bool(overdue), inf if silent is None else silent)
        for job_id, attempt, overdue, silent, worker in rows
    ]


def silence(session: Session, *, host: str) -> float | None:
    """Seconds since a worker of this host last said that it is alive; `None`: none ever did."""
    return session.scalars(
        select(now() - func.max(Worker.seen_at)).where(Worker.host == host)
    ).one()


def forget(session: Session, *, silent_seconds: float, left: Owner | None = None) -> None:
    """Drop workers that were silent for so long, and one that `left`, if they hold nothing."""
    holding = select(Job.worker).where(Job.state == JobState.RUNNING)
    over = or_(Worker.seen_at < now() - silent_seconds, Worker.id == (left.id if left else None))
    session.execute(
        delete(Worker).where(over, Worker.id.not_in(holding)), execution_options=UNSYNCED
    )


def _owner(worker: Worker | None) -> Owner | None:
    if worker is None:
        return None
    return Owner(worker.id, worker.host, worker.boot_id, worker.pid, worker.pid_start)
