"""Insert and read rows of jobs without the service."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id
from app.database.engines import Database
from app.queue import leases
from app.queue.enums import DeviceClass, JobState
from app.queue.fencing import ClaimedJob, Lease, WorkerIdentity
from app.queue.tables import Attempt, Job, JobEvent, MetricPoint
from app.queue.transitions import Preempted
from lora_core.specs.train import TrainSpec

ALICE = WorkerIdentity(id="alice", host="there", boot_id="boot-1", pid=11, pid_start=111)
BOB = WorkerIdentity(id="bob", host="there", boot_id="boot-1", pid=22, pid_start=222)
SPEC = TrainSpec.model_validate({"method": {"type": "lora"}}).model_dump(mode="json")
MANIFEST = {"spec": SPEC, "metrics": {}}  # of a manifest


def add_job(database: Database, **changes: Any) -> UUID:
    """Insert a queued job that is due."""
    values: dict[str, Any] = {
        "id": new_id(),
        "created_by": LOCAL_KEY_ID,
        "user_metadata": {},
        "method": "lora",
        "device_class": DeviceClass.CPU,
        "spec": SPEC,
        "spec_version": 2,
        "dataset_ids": {},
        "base": "minilm-l6",
        **changes,
    }
    with database.write() as session:
        session.add(Job(**values))
    job_id: UUID = values["id"]
    return job_id


def update_job(database: Database, job_id: UUID, **values: Any) -> None:
    """Update the row as another process would."""
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def claim_next(database: Database, owner: WorkerIdentity = ALICE) -> ClaimedJob:
    """Claim the next job."""
    with database.write() as session:
        claimed = leases.claim_job(
            session, owner=owner, device_class=DeviceClass.CPU, device="cpu", lease_seconds=60
        )
    assert claimed is not None
    return claimed


def preempt(database: Database, lease: Lease) -> None:
    """End the attempt as a worker does when it shuts down."""
    with database.write() as session:
        leases.finish_attempt(session, lease, Preempted())


def get_job(database: Database, job_id: UUID) -> Job:
    with database.read() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def get_state(database: Database, job_id: UUID) -> JobState:
    return JobState(get_job(database, job_id).state)


def attempts(database: Database, job_id: UUID) -> list[Attempt]:
    statement = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.attempt)
    with database.read() as session:
        return list(session.scalars(statement))


def events(database: Database, job_id: UUID) -> list[JobEvent]:
    statement = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
    with database.read() as session:
        return list(session.scalars(statement))


def points(database: Database, job_id: UUID) -> list[MetricPoint]:
    statement = select(MetricPoint).where(MetricPoint.job_id == job_id).order_by(MetricPoint.seq)
    with database.read() as session:
        return list(session.scalars(statement))


def dump_tables(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the tables that workers write to."""
    with database.read() as session:
        return {
            table.__tablename__: [tuple(row) for row in session.execute(select(table.__table__))]
            for table in (Job, Attempt, JobEvent, MetricPoint)
        }
