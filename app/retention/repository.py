"""Rows that have had their time, and what the others know.

Each condition stands in the statement that deletes, so any number of workers may sweep at once.
"""

from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, select, text, update
from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.artifacts.tables import MODEL, Artifact
from app.datasets import files
from app.datasets.tables import Dataset
from app.db.clock import now
from app.idempotency.tables import IdempotencyKey
from app.jobs.endings import Told
from app.jobs.guards import UNSYNCED, append
from app.jobs.repository import FINAL
from app.jobs.states import JobState
from app.jobs.states import Kind as Work
from app.jobs.tables import Checkpoint, Job
from app.keys.tables import LOCAL_KEY_ID, ApiKey
from app.registry.tables import ModelVersion
from app.retention.removals import Kind, Known, Removal

DAY = 86_400.0  # seconds
REMOVED = Told(
    "model_removed",
    "info",
    "The model was removed: no version was made of it within the time that models are kept.",
    {},
)
RESULTS_REMOVED = Told(
    "results_removed", "info", "The results were removed: they were kept for long enough.", {}
)
_SIZES = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT pg_database_size(current_database())",
}


def database_name(session: Session) -> str:
    """What no other database is called: the moment at which it was made, to the microsecond."""
    made: float = session.scalars(select(ApiKey.created_at).where(ApiKey.id == LOCAL_KEY_ID)).one()
    return f"database of {made!r}"


def known(session: Session) -> Known:
    """The keys that rows point at, and the attempts that may still add some."""
    uploads = session.scalars(select(Dataset).where(Dataset.deleted_at.is_(None)))
    running = select(Job.id, Job.attempt).where(Job.state == JobState.RUNNING)
    return Known(
        keys=frozenset(session.scalars(select(Artifact.key)))
        | frozenset(session.scalars(select(Checkpoint.key)))
        | frozenset(files.key(upload) for upload in uploads),
        running=frozenset((row.id, row.attempt) for row in session.execute(running)),
    )


def live_uploads(session: Session) -> frozenset[str]:
    """Ids of the data sets that were not deleted."""
    ids = session.scalars(select(Dataset.id).where(Dataset.deleted_at.is_(None)))
    return frozenset(str(each) for each in ids)


def forget_checkpoints(session: Session, *, days: float) -> list[Removal]:
    """Those of jobs that ended so long ago, unless a job that has not ended continues from there.

    The caller deletes their files after its commit.
    """
    continued = select(Job.continues).where(Job.continues.is_not(None), Job.state.not_in(FINAL))
    gone = session.execute(
        delete(Checkpoint)
        .where(Checkpoint.job_id.in_(select(Job.id).where(_ended(days))))
        .where(Checkpoint.job_id.not_in(continued))
        .returning(Checkpoint.key, Checkpoint.bytes, (now() - Checkpoint.at).label("age")),
        execution_options=UNSYNCED,
    )
    why = f"its job ended over {days:g} days ago"
    return [Removal(Kind.CHECKPOINT, row.key, row.bytes, row.age, why) for row in gone]


def forget_models(session: Session, *, days: float) -> list[Removal]:
    """Those that no version is made of, of jobs that ended so long ago.

    The job stays and tells in an event what became of its model. The caller deletes the files
    after its commit.
    """
    registered = select(ModelVersion.id).where(ModelVersion.artifact_id == Artifact.id).exists()
    model = Artifact.kind == MODEL
    which = and_(Job.kind == Work.TRAINING, _ended(days), model, ~registered)
    why = f"no version is made of it, and its job ended over {days:g} days ago"
    return _forget_made(session, which, Kind.MODEL, why, REMOVED)


def forget_results(session: Session, *, days: float) -> list[Removal]:
    """Those of prediction runs that ended so long ago. The runs stay. As `forget_models`."""
    which = and_(Job.kind == Work.PREDICTION, _ended(days))
    why = f"its prediction run ended over {days:g} days ago"
    return _forget_made(session, which, Kind.RESULT, why, RESULTS_REMOVED)


def forget_answers(session: Session, *, seconds: float) -> int:
    """Drop answers under an `Idempotency-Key` that are so old; how many."""
    gone = session.scalars(
        delete(IdempotencyKey)
        .where(IdempotencyKey.created_at < now() - seconds)
        .returning(IdempotencyKey.key),
        execution_options=UNSYNCED,
    )
    return len(gone.all())


def database_bytes(session: Session) -> int:
    """What the database takes."""
    size: int = session.execute(text(_SIZES[session.get_bind().dialect.name])).scalar_one()
    return size


def _forget_made(
    session: Session, which: ColumnElement[bool], kind: Kind, why: str, told: Told
) -> list[Removal]:
    age = (now() - Artifact.created_at).label("age")
    made = session.execute(
        select(Job.id, Artifact.id.label("artifact_id"), Artifact.key, Artifact.bytes, age)
        .join(Artifact, Artifact.id == Job.artifact_id)
        .where(which)
    ).all()
    return [
        Removal(kind, row.key, row.bytes, row.age, why)
        for row in made
        if _forget(session, row.id, row.artifact_id, told)
    ]


def _forget(session: Session, job_id: UUID, artifact_id: UUID, told: Told) -> bool:
    """Take what it made off its row. False: somebody needs it after all, or was faster."""
    with session.begin_nested() as step:
        job = session.execute(
            update(Job)
            .where(Job.id == job_id, Job.artifact_id == artifact_id)
            .values(artifact_id=None, stream_seq=Job.stream_seq + 1)
            .returning(Job.id, Job.attempt, Job.stream_seq),
            execution_options=UNSYNCED,
        ).one_or_none()
        if job is None:
            return False
        append(session, job, told)
        if artifacts.remove_unused(session, artifact_id) is None:
            step.rollback()
            return False
    return True


def _ended(days: float) -> ColumnElement[bool]:
    return and_(Job.state.in_(FINAL), Job.finished_at < now() - days * DAY)
