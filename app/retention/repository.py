"""Rows that have had their time, and what the others know.

They are found page by page and given up in small batches, each in a transaction of its own, so that
nobody waits for long. Each batch repeats its condition: any number of workers may do so at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, select, text, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, load_only

from app.auth.tables import LOCAL_KEY_ID, ApiKey
from app.database.clock import now
from app.datasets import files
from app.datasets.tables import Dataset
from app.idempotency.tables import IdempotencyKey
from app.jobs.repository import UNENDED
from app.queue.fencing import UNSYNCED, append
from app.queue.states import JobState
from app.queue.tables import Checkpoint, Job
from app.queue.transitions import Told
from app.registry.tables import ModelVersion
from app.retention.files import Kind, Removal
from app.storage.tables import MODEL, RESULTS, Artifact

DAY = 86_400.0  # seconds
PAGE = 500  # rows that one look goes through
BATCH = 25  # rows that one transaction gives up
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


def running(session: Session) -> frozenset[tuple[UUID, int]]:
    """Attempts that may still add rows."""
    rows = session.execute(select(Job.id, Job.attempt).where(Job.state == JobState.RUNNING))
    return frozenset((row.id, row.attempt) for row in rows)


def artifact_keys(session: Session, after: UUID | None) -> tuple[Sequence[str], UUID | None]:
    """Keys of one page, and the last row of it; None: there is no more."""
    page = _page(session, Artifact.id, after)
    return session.scalars(select(Artifact.key).where(*page.of(Artifact.id))).all(), page.last


def checkpoint_keys(session: Session, after: UUID | None) -> tuple[Sequence[str], UUID | None]:
    """As `artifact_keys`."""
    page = _page(session, Checkpoint.job_id, after)
    keys = select(Checkpoint.key).where(*page.of(Checkpoint.job_id))
    return session.scalars(keys).all(), page.last


def upload_keys(session: Session, after: UUID | None) -> tuple[Sequence[str], UUID | None]:
    """As `artifact_keys`, of data sets that were not deleted."""
    page = _page(session, Dataset.id, after)
    uploads = select(Dataset).options(load_only(Dataset.id, Dataset.suffix))
    found = session.scalars(uploads.where(*page.of(Dataset.id), Dataset.deleted_at.is_(None)))
    return [files.key(upload) for upload in found], page.last


def live_uploads(session: Session) -> frozenset[str]:
    """Ids of the data sets that were not deleted."""
    ids = session.scalars(select(Dataset.id).where(Dataset.deleted_at.is_(None)))
    return frozenset(str(each) for each in ids)


class Looked(NamedTuple):
    """Expired rows of one page by their key; `last`: of the page, None if it is the last one."""

    expired: list[tuple[UUID, Removal]]
    last: UUID | None


class Expiry(Protocol):
    """Rows of one kind that are kept for some days."""

    def look(self, session: Session, after: UUID | None) -> Looked:
        """What has expired on the page that follows a key."""

    def forget(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        """Give up those with these keys that have still expired; the caller commits, and deletes
        their files then.
        """


@dataclass(frozen=True)
class Checkpoints:
    """Those of jobs that ended so long ago, unless a job that has not ended continues from there.

    By job.
    """

    days: float

    def look(self, session: Session, after: UUID | None) -> Looked:
        page = _page(session, Checkpoint.job_id, after)
        rows = session.execute(
            select(Checkpoint.job_id, Checkpoint.key, Checkpoint.bytes, _age(Checkpoint.at))
            .join(Job, Job.id == Checkpoint.job_id)
            .where(*page.of(Checkpoint.job_id, Job.id), _ended(self.days), ~_continued())
            .order_by(Checkpoint.job_id, Checkpoint.attempt, Checkpoint.step)
        )
        return Looked([(row.job_id, self._removal(*row[1:])) for row in rows], page.last)

    def forget(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        gone = session.execute(
            delete(Checkpoint)
            .where(Checkpoint.job_id.in_(select(Job.id).where(Job.id.in_(keys), _ended(self.days))))
            .where(~_continued())
            .returning(Checkpoint.key, Checkpoint.bytes, _age(Checkpoint.at)),
            execution_options=UNSYNCED,
        )
        return [self._removal(*row) for row in gone]

    def _removal(self, key: str, size: int, age: float) -> Removal:
        return Removal(
            Kind.CHECKPOINT, key, size, age, f"its job ended over {self.days:g} days ago"
        )


@dataclass(frozen=True)
class Made:
    """What jobs made that ended so long ago, by artifact. The job stays, and an event tells."""

    kind: Kind
    which: ColumnElement[bool]
    why: str
    told: Told

    def look(self, session: Session, after: UUID | None) -> Looked:
        page = _page(session, Artifact.id, after)
        registered = select(ModelVersion.id).where(ModelVersion.artifact_id == Artifact.id).exists()
        rows = session.execute(
            select(Artifact.id, Artifact.key, Artifact.bytes, _age(Artifact.created_at))
            .join(Job, Job.artifact_id == Artifact.id)
            .where(*page.of(Artifact.id, Job.artifact_id), self.which, ~registered)
            .order_by(Artifact.id)
        )
        return Looked([(row.id, self._removal(*row[1:])) for row in rows], page.last)

    def forget(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        """What somebody else works on at this moment is left for the next time."""
        rows = session.execute(
            select(
                *(Job.id.label("job_id"), Artifact.id, Artifact.key, Artifact.bytes),
                _age(Artifact.created_at),
            )
            .join(Artifact, Artifact.id == Job.artifact_id)
            .where(Artifact.id.in_(keys), self.which)
            .with_for_update(skip_locked=True)
        ).all()
        # Asked once they are locked, since nobody can come to need one of them any more.
        needed = self._needed(session, [row.id for row in rows], [row.job_id for row in rows])
        gone = [row for row in rows if row.id not in needed]
        jobs = session.execute(
            update(Job)
            .where(Job.id.in_([row.job_id for row in gone]))
            .values(artifact_id=None, stream_seq=Job.stream_seq + 1)
            .returning(Job.id, Job.attempt, Job.stream_seq),
            execution_options=UNSYNCED,
        )
        for job in jobs:
            append(session, job, self.told)
        ids = [row.id for row in gone]
        session.execute(delete(Artifact).where(Artifact.id.in_(ids)), execution_options=UNSYNCED)
        return [self._removal(*row[2:]) for row in gone]

    def _needed(
        self, session: Session, ids: Sequence[UUID], jobs: Sequence[UUID]
    ) -> frozenset[UUID | None]:
        versions = select(ModelVersion.artifact_id).where(ModelVersion.artifact_id.in_(ids))
        others = select(Job.artifact_id).where(Job.artifact_id.in_(ids), Job.id.not_in(jobs))
        return frozenset(session.scalars(versions)) | frozenset(session.scalars(others))

    def _removal(self, key: str, size: int, age: float) -> Removal:
        return Removal(self.kind, key, size, age, self.why)


def models(*, days: float) -> Made:
    """Those that no version is made of."""
    which = and_(_ended(days), Artifact.kind == MODEL)
    why = f"no version is made of it, and its job ended over {days:g} days ago"
    return Made(Kind.MODEL, which, why, REMOVED)


def results(*, days: float) -> Made:
    """Those of prediction runs."""
    which = and_(_ended(days), Artifact.kind == RESULTS)
    why = f"its prediction run ended over {days:g} days ago"
    return Made(Kind.RESULT, which, why, RESULTS_REMOVED)


def old_answers(session: Session, *, seconds: float) -> int:
    """How many answers under an `Idempotency-Key` are so old."""
    old = IdempotencyKey.created_at < now() - seconds
    return session.scalars(select(func.count()).select_from(IdempotencyKey).where(old)).one()


def forget_answers(session: Session, *, seconds: float) -> int:
    """Drop some of them; how many. 0: there are no more."""
    key = tuple_(IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
    some = select(IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
    old = IdempotencyKey.created_at < now() - seconds
    some = some.where(old).order_by(IdempotencyKey.created_at).limit(BATCH)
    gone = session.scalars(
        delete(IdempotencyKey).where(key.in_(some)).returning(IdempotencyKey.key),
        execution_options=UNSYNCED,
    )
    return len(gone.all())


def database_bytes(session: Session) -> int:
    """What the database takes."""
    size: int = session.execute(text(_SIZES[session.get_bind().dialect.name])).scalar_one()
    return size


class _Page(NamedTuple):
    """The rows whose key comes after one and not after the last; None: from the first, to the end.

    Said of both sides of a join, or a planner may read all of the other one.
    """

    after: UUID | None
    last: UUID | None

    def of(self, *columns: InstrumentedAttribute[Any]) -> list[ColumnElement[bool]]:
        after = [column > self.after for column in columns] if self.after else []
        return after + ([column <= self.last for column in columns] if self.last else [])


def _page(session: Session, key: InstrumentedAttribute[UUID], after: UUID | None) -> _Page:
    """The next page by this key."""
    keys = select(key).where(*_Page(after, None).of(key)).order_by(key)
    return _Page(after, session.scalars(keys.offset(PAGE - 1).limit(1)).one_or_none())


def _age(since: InstrumentedAttribute[float]) -> ColumnElement[float]:
    return (now() - since).label("age")


def _continued() -> ColumnElement[bool]:
    """Whether a job that has not ended begins with the checkpoints of this row's job."""
    later = aliased(Job)
    return (
        select(later.id)
        .where(later.continues == Checkpoint.job_id, later.state.in_(UNENDED))
        .correlate(Checkpoint)
        .exists()
    )


def _ended(days: float) -> ColumnElement[bool]:
    """Without its kind and state, by whose index SQLite would read every job that has ended."""
    return Job.finished_at < now() - days * DAY
