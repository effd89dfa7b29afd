"""Jobs, curves and versions for tests of MLflow, and what is due sent as a worker does it."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app.database.base import now
from app.database.engines import Database
from app.mlflow import repository
from app.mlflow.connection import MlflowConnection
from app.mlflow.sender import send_due
from app.outbox import repository as outbox
from app.outbox.tables import MlflowModel, MlflowRun, MlflowServer
from app.queue import leases
from app.queue.fencing import Lease
from app.queue.tables import MetricPoint
from app.queue.transitions import AttemptResult, Succeeded
from app.registry import service as registry
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import MODEL_KIND, Artifact
from tests.app.web.finished_jobs import make_verdict
from tests.job_rows import MANIFEST, add_job

PUBLIC_URL = "https://lab.example"


def connect(database: Database, url: str, experiment: str = "loraworks") -> MlflowConnection:
    """Register a server as a worker does when it starts."""
    connection = MlflowConnection(url, experiment)
    with database.write() as session:
        repository.register_server_and_fill_outbox(session, connection)
    return connection


def send(database: Database, connection: MlflowConnection) -> bool:
    """Send what is due."""
    return send_due(database, connection, public_url=PUBLIC_URL, should_stop=lambda: False)


def make_due(database: Database) -> None:
    """Let every wait and every lease run out."""
    with database.write() as session:
        for table in (MlflowServer, MlflowRun, MlflowModel):
            session.execute(update(table).values(next_attempt_at=now() - 1))
        session.execute(update(MlflowServer).values(lease_expires_at=None))


def server(database: Database) -> MlflowServer:
    with database.read() as session:
        return session.scalars(select(MlflowServer)).one()


def run_row(database: Database, job_id: UUID) -> MlflowRun:
    with database.read() as session:
        return session.get_one(MlflowRun, job_id)


def create_job(database: Database, **changes: Any) -> UUID:
    """Insert a queued job with its row in the outbox, as the API does."""
    job_id = add_job(database, **changes)
    with database.write() as session:
        outbox.add_mlflow_run(session, job_id)
    return job_id


def log_points(
    database: Database, lease: Lease, steps: range, *, name: str = "loss", split: str = "train"
) -> None:
    """Add points of a curve, whose values are 1/step."""
    with database.write() as session:
        renewed = leases.renew_lease(
            session, lease, step=steps[-1], total_steps=100, reserve=len(steps)
        )
        assert renewed is not None
        for seq, step in enumerate(steps, renewed.first_seq):
            session.add(
                MetricPoint(
                    job_id=lease.job_id,
                    seq=seq,
                    attempt=lease.attempt,
                    split=split,
                    name=name,
                    step=step,
                    value=1 / step,
                )
            )


def finish(
    database: Database, lease: Lease, result: AttemptResult | None = None, **summary: Any
) -> None:
    """End an attempt; without a result, the job succeeds."""
    artifact = add_artifact(database, lease.job_id)
    with database.write() as session:
        leases.finish_attempt(session, lease, result or Succeeded(artifact.id, summary))


def add_artifact(database: Database, job_id: UUID | None) -> Artifact:
    with database.write() as session:
        ref = ArtifactRef(f"jobs/{job_id}/a1", "0" * 64, bytes=1)
        return artifacts.add_artifact(session, job_id=job_id, kind=MODEL_KIND, ref=ref)


def add_version(database: Database, artifact: Artifact, name: str = "sentiment") -> int:
    verdict = make_verdict(learned=True).model_copy(update={"headline": "It learned."})
    metrics = {
        "test": {"accuracy": 0.9, "loss": 0.25},
        "verdict": verdict.model_dump(mode="json"),
    }
    with database.write() as session:
        version = registry.add_version(
            session, name=name, artifact=artifact, manifest={**MANIFEST, "metrics": metrics}
        )
    return version.number


def move_alias(
    database: Database, alias: str, number: int, name: str = "sentiment", *, rollback: bool = False
) -> None:
    with database.write() as session:
        registry.move_alias(session, name=name, alias=alias, number=number, rollback=rollback)
