"""The rules of retention: which rows expire, and how they are deleted.

Expired rows are found page by page and deleted in small batches, each in its own transaction, so
that other writers never wait for long. Each batch checks its condition again, so any number of
workers may run this at once.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, delete, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.database.base import min_uuid7_at, now, read_clock
from app.datasets.tables import Dataset
from app.jobs.repository import ACTIVE_STATES
from app.labeling.tables import LabelingProject
from app.outbox.tables import WebhookDelivery
from app.queue.events import EventContent, add_job_event
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import Checkpoint, Job
from app.registry.tables import ModelVersion
from app.retention.files import DataKind, Removal
from app.retention.repository import BATCH_SIZE, next_id_range
from app.storage import repository as artifacts
from app.storage.tables import BASE_KIND, MODEL_KIND, RESULTS_KIND, VECTORS_KIND, Artifact
from app.sweeps import repository as sweeps_repository
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep, Trial

_DAY_SECONDS = 86_400.0
# Estimates, measured on SQLite, with indexes; of a job with an attempt and twelve events.
_JOB_BYTES = 9_000
_TRIAL_BYTES = 1_000
_DELIVERY_BYTES = 1_000
_MODEL_REMOVED = EventContent(
    "model_removed",
    "info",
    "The model was deleted: it was not registered within the retention period.",
    {},
)
_RESULTS_REMOVED = EventContent(
    "results_removed", "info", "The results were deleted: their retention period is over.", {}
)
_VECTORS_REMOVED = EventContent(
    "vectors_removed", "info", "The vectors were deleted: no labeling project uses them.", {}
)


class ExpiredPage(NamedTuple):
    """Expired rows of one page as (id, removal), and the page's last id, None on the last page."""

    expired: list[tuple[UUID, Removal]]
    last: UUID | None


class ExpiryRule(Protocol):
    """A rule that expires rows of one kind after some days."""

    @property
    def batch_size(self) -> int:
        """How many rows one transaction deletes."""

    def find_expired(self, session: Session, after: UUID | None) -> ExpiredPage:
        """Return the expired rows of the page after an id."""

    def delete_expired_rows(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        """Delete those of these rows that are still expired.

        The caller deletes their files after the commit.
        """


@dataclass(frozen=True)
class CheckpointExpiry:
    """Expires checkpoints of jobs that ended `days` ago, unless an active job resumes from them.

    The ids are job ids.
    """

    days: float
    batch_size = BATCH_SIZE

    def find_expired(self, session: Session, after: UUID | None) -> ExpiredPage:
        id_range = next_id_range(session, Checkpoint.job_id, after)
        rows = session.execute(
            select(Checkpoint.job_id, Checkpoint.key, Checkpoint.bytes, _age(Checkpoint.at))
            .join(Job, Job.id == Checkpoint.job_id)
            .where(
                *id_range.conditions(Checkpoint.job_id, Job.id),
                _ended_before(self.days),
                ~_is_resumed_from(Checkpoint.job_id),
            )
            .order_by(Checkpoint.job_id, Checkpoint.attempt, Checkpoint.step)
        )
        return ExpiredPage([(row.job_id, self._removal(*row[1:])) for row in rows], id_range.last)

    def delete_expired_rows(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        deleted = session.execute(
            delete(Checkpoint)
            .where(
                Checkpoint.job_id.in_(
                    select(Job.id).where(Job.id.in_(keys), _ended_before(self.days))
                )
            )
            .where(~_is_resumed_from(Checkpoint.job_id))
            .returning(Checkpoint.key, Checkpoint.bytes, _age(Checkpoint.at)),
            execution_options=NO_SESSION_SYNC,
        )
        return [self._removal(*row) for row in deleted]

    def _removal(self, key: str, size: int, age: float) -> Removal:
        return Removal(
            DataKind.CHECKPOINT, key, size, age, f"its job ended over {self.days:g} days ago"
        )


@dataclass(frozen=True)
class ArtifactExpiry:
    """Expires artifacts of ended jobs. The job stays, and gets an event.

    The ids are artifact ids.
    """

    kind: DataKind
    condition: ColumnElement[bool]
    reason: str
    event: EventContent
    batch_size = BATCH_SIZE

    def find_expired(self, session: Session, after: UUID | None) -> ExpiredPage:
        id_range = next_id_range(session, Artifact.id, after)
        registered = select(ModelVersion.id).where(ModelVersion.artifact_id == Artifact.id).exists()
        rows = session.execute(
            select(Artifact.id, Artifact.key, Artifact.bytes, _age(Artifact.created_at))
            .join(Job, Job.artifact_id == Artifact.id)
            .where(*id_range.conditions(Artifact.id, Job.artifact_id), self.condition, ~registered)
            .order_by(Artifact.id)
        )
        return ExpiredPage([(row.id, self._removal(*row[1:])) for row in rows], id_range.last)

    def delete_expired_rows(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        """Delete the artifacts. Rows that are locked by others are left for the next run."""
        rows = session.execute(
            select(
                *(Job.id.label("job_id"), Artifact.id, Artifact.key, Artifact.bytes),
                _age(Artifact.created_at),
            )
            .join(Artifact, Artifact.id == Job.artifact_id)
            .where(Artifact.id.in_(keys), self.condition)
            .with_for_update(skip_locked=True)
        ).all()
        # Checked after locking them, because nothing can start to refer to them any more.
        referenced = self._still_referenced(
            session, [row.id for row in rows], [row.job_id for row in rows]
        )
        deleted = [row for row in rows if row.id not in referenced]
        jobs = session.execute(
            update(Job)
            .where(Job.id.in_([row.job_id for row in deleted]))
            .values(artifact_id=None, stream_seq=Job.stream_seq + 1)
            .returning(Job.id, Job.attempt, Job.stream_seq),
            execution_options=NO_SESSION_SYNC,
        )
        for job in jobs:
            add_job_event(session, job, self.event)
        ids = [row.id for row in deleted]
        session.execute(
            delete(Artifact).where(Artifact.id.in_(ids)), execution_options=NO_SESSION_SYNC
        )
        return [self._removal(*row[2:]) for row in deleted]

    def _still_referenced(
        self, session: Session, ids: Sequence[UUID], jobs: Sequence[UUID]
    ) -> frozenset[UUID | None]:
        versions = select(ModelVersion.artifact_id).where(ModelVersion.artifact_id.in_(ids))
        others = select(Job.artifact_id).where(Job.artifact_id.in_(ids), Job.id.not_in(jobs))
        return frozenset(session.scalars(versions)) | frozenset(session.scalars(others))

    def _removal(self, key: str, size: int, age: float) -> Removal:
        return Removal(self.kind, key, size, age, self.reason)


def unregistered_model_expiry(*, days: float) -> ArtifactExpiry:
    """Expire models that are not registered as a version, of jobs without tags and notes."""
    unmarked = and_(Job.tags.is_(None), Job.notes.is_(None))
    condition = and_(_ended_before(days), Artifact.kind == MODEL_KIND, unmarked)
    reason = f"it is not registered, and its job ended over {days:g} days ago"
    return ArtifactExpiry(DataKind.MODEL, condition, reason, _MODEL_REMOVED)


def prediction_result_expiry(*, days: float) -> ArtifactExpiry:
    """Expire results of prediction runs."""
    condition = and_(_ended_before(days), Artifact.kind == RESULTS_KIND)
    reason = f"its prediction run ended over {days:g} days ago"
    return ArtifactExpiry(DataKind.RESULT, condition, reason, _RESULTS_REMOVED)


def unused_vector_expiry(*, days: float) -> ArtifactExpiry:
    """Expire vectors that no labeling project on an existing dataset uses."""
    used = (
        select(LabelingProject.id)
        .join(Dataset, Dataset.id == LabelingProject.dataset_id)
        .where(LabelingProject.job_id == Job.id, Dataset.deleted_at.is_(None))
        .correlate(Job)
        .exists()
    )
    condition = and_(_ended_before(days), Artifact.kind == VECTORS_KIND, ~used)
    reason = f"no labeling project uses it, and its job ended over {days:g} days ago"
    return ArtifactExpiry(DataKind.VECTORS, condition, reason, _VECTORS_REMOVED)


class UnusedBaseExpiry:
    """Bases to which no model refers any more. The ids are artifact ids."""

    batch_size = BATCH_SIZE

    def find_expired(self, session: Session, after: UUID | None) -> ExpiredPage:
        id_range = next_id_range(session, Artifact.id, after)
        rows = session.execute(
            select(Artifact.id, Artifact.key, Artifact.bytes, _age(Artifact.created_at))
            .where(
                *id_range.conditions(Artifact.id),
                Artifact.kind == BASE_KIND,
                ~_is_base_of_a_model(),
            )
            .order_by(Artifact.id)
        )
        return ExpiredPage([(row.id, self._removal(*row[1:])) for row in rows], id_range.last)

    def delete_expired_rows(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        """Delete the bases. Rows that are locked by others are left for the next run."""
        locked = session.scalars(
            select(Artifact.id).where(Artifact.id.in_(keys)).with_for_update(skip_locked=True)
        ).all()
        # Checked after locking them, because no model can start to refer to them any more.
        deleted = session.execute(
            delete(Artifact)
            .where(Artifact.id.in_(locked), ~_is_base_of_a_model())
            .returning(Artifact.key, Artifact.bytes, _age(Artifact.created_at)),
            execution_options=NO_SESSION_SYNC,
        )
        return [self._removal(*row) for row in deleted]

    def find_without_models(self, session: Session, expired: Collection[str]) -> list[Removal]:
        """Return the bases that no model uses but the `expired` ones: a dry run leaves their rows.

        The models are given by their keys.
        """
        models = select(Artifact.base_id, Artifact.key).where(Artifact.base_id.is_not(None))
        used = {base_id for base_id, key in session.execute(models) if key not in expired}
        bases = select(Artifact.id, Artifact.key, Artifact.bytes, _age(Artifact.created_at))
        rows = session.execute(bases.where(Artifact.kind == BASE_KIND).order_by(Artifact.id))
        return [self._removal(*row[1:]) for row in rows if row.id not in used]

    def _removal(self, key: str, size: int, age: float) -> Removal:
        return Removal(DataKind.BASE, key, size, age, "no model uses it")


def _is_base_of_a_model() -> ColumnElement[bool]:
    model = aliased(Artifact)
    return select(model.id).where(model.base_id == Artifact.id).correlate(Artifact).exists()


@dataclass(frozen=True)
class SweepExpiry:
    """Expires sweeps that finished `days` ago. Their jobs then are, and expire, like others.

    The ids are sweep ids.
    """

    days: float
    batch_size = 1  # a sweep has thousands of trials

    def find_expired(self, session: Session, after: UUID | None) -> ExpiredPage:
        id_range = next_id_range(session, Sweep.id, after)
        sweeps = self._select(_finished_before(self.days), *id_range.conditions(Sweep.id))
        rows = session.execute(sweeps.order_by(Sweep.id))
        return ExpiredPage([(row.id, self._removal(*row)) for row in rows], id_range.last)

    def delete_expired_rows(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        sweeps = self._select(_finished_before(self.days), Sweep.id.in_(keys))
        rows = session.execute(sweeps.with_for_update(of=Sweep, skip_locked=True)).all()
        ids = [row.id for row in rows]
        for sweep_id in ids:
            remaining = sweeps_repository.hand_over_shared_jobs(session, sweep_id)
            session.execute(
                update(Job).where(Job.id.in_(remaining)).values(sweep_id=None),
                execution_options=NO_SESSION_SYNC,
            )
        session.execute(delete(Sweep).where(Sweep.id.in_(ids)), execution_options=NO_SESSION_SYNC)
        return [self._removal(*row) for row in rows]

    def _select(self, *conditions: ColumnElement[bool]) -> Select[UUID, float, int]:
        trials = select(func.count()).where(Trial.sweep_id == Sweep.id).scalar_subquery()
        return select(Sweep.id, _age(Sweep.finished_at), trials).where(*conditions)

    def _removal(self, sweep_id: UUID, age: float, trials: int) -> Removal:
        reason = f"it finished over {self.days:g} days ago"
        return Removal(DataKind.SWEEP, str(sweep_id), trials * _TRIAL_BYTES, age, reason)


@dataclass(frozen=True)
class JobExpiry:
    """Expires jobs and prediction runs that ended `days` ago, with all their rows and files.

    Those with a model, registered or not, with tags or with notes are kept, and so are the jobs of
    sweeps that are kept, and of labeling projects. The ids are job ids.
    """

    days: float
    batch_size = 5  # a job has hundreds of points

    def find_expired(self, session: Session, after: UUID | None) -> ExpiredPage:
        # Ids are in the order of creation, so that younger jobs are not read.
        old = Job.id < min_uuid7_at(read_clock(session) - self.days * _DAY_SECONDS)
        id_range = next_id_range(session, Job.id, after, old)
        jobs = session.execute(
            select(Job.id, _age(Job.finished_at), Artifact.key, Artifact.bytes)
            .outerjoin(Artifact, Artifact.id == Job.artifact_id)
            .where(*id_range.conditions(Job.id), old, *self._conditions())
            .order_by(Job.id)
        )
        expired = [(job.id, removal) for job in jobs for removal in self._removals(*job)]
        return ExpiredPage(expired, id_range.last)

    def delete_expired_rows(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        deleted = session.execute(
            delete(Job)
            .where(Job.id.in_(keys), *self._conditions())
            .returning(Job.id, _age(Job.finished_at), Job.artifact_id),
            execution_options=NO_SESSION_SYNC,
        ).all()
        removals: list[Removal] = []
        for job_id, age, artifact_id in deleted:
            artifact = session.get(Artifact, artifact_id) if artifact_id else None
            key, size = (artifact.key, artifact.bytes) if artifact else (None, None)
            if artifact and artifacts.delete_unused_artifact_row(session, artifact.id) is None:
                key = None
            removals.extend(self._removals(job_id, age, key, size))
        return removals

    def _conditions(self) -> tuple[ColumnElement[bool], ...]:
        kept = (
            select(ModelVersion.id).where(ModelVersion.job_id == Job.id),
            select(Artifact.id).where(Artifact.id == Job.artifact_id, Artifact.kind == MODEL_KIND),
            select(Trial.number)
            .join(Sweep, Sweep.id == Trial.sweep_id)
            .where(Trial.job_id == Job.id, ~_finished_before(self.days)),
            select(LabelingProject.id).where(LabelingProject.job_id == Job.id),
        )
        unused = [~each.correlate(Job).exists() for each in kept]
        unmarked = (Job.tags.is_(None), Job.notes.is_(None))
        return (_ended_before(self.days), *unmarked, *unused, ~_is_resumed_from(Job.id))

    def _removals(
        self, job_id: UUID, age: float, key: str | None, size: int | None
    ) -> Iterator[Removal]:
        """Yield the removal of the rows, and that of the files of the job's artifact, if any."""
        reason = f"it ended over {self.days:g} days ago"
        yield Removal(DataKind.JOB, str(job_id), _JOB_BYTES, age, reason)
        if key is not None and size is not None:
            kinds = {"predictions": DataKind.RESULT, "vectors": DataKind.VECTORS}
            kind = kinds.get(key.partition("/")[0], DataKind.MODEL)
            yield Removal(kind, key, size, age, f"its job {reason}")


@dataclass(frozen=True)
class DeliveryExpiry:
    """Expires webhook deliveries that ended `days` ago. The ids are delivery ids."""

    days: float
    batch_size = BATCH_SIZE

    def find_expired(self, session: Session, after: UUID | None) -> ExpiredPage:
        # Ids are in the order of creation, so that younger deliveries are not read.
        old = WebhookDelivery.id < min_uuid7_at(read_clock(session) - self.days * _DAY_SECONDS)
        id_range = next_id_range(session, WebhookDelivery.id, after, old)
        rows = session.execute(
            select(WebhookDelivery.id, _age(WebhookDelivery.finished_at))
            .where(*id_range.conditions(WebhookDelivery.id), old, self._ended())
            .order_by(WebhookDelivery.id)
        )
        return ExpiredPage([(row.id, self._removal(*row)) for row in rows], id_range.last)

    def delete_expired_rows(self, session: Session, keys: Sequence[UUID]) -> list[Removal]:
        deleted = session.execute(
            delete(WebhookDelivery)
            .where(WebhookDelivery.id.in_(keys), self._ended())
            .returning(WebhookDelivery.id, _age(WebhookDelivery.finished_at)),
            execution_options=NO_SESSION_SYNC,
        )
        return [self._removal(*row) for row in deleted]

    def _ended(self) -> ColumnElement[bool]:
        return WebhookDelivery.finished_at < now() - self.days * _DAY_SECONDS

    def _removal(self, delivery_id: UUID, age: float) -> Removal:
        reason = f"it ended over {self.days:g} days ago"
        return Removal(DataKind.DELIVERY, str(delivery_id), _DELIVERY_BYTES, age, reason)


def _age(since: InstrumentedAttribute[Any]) -> ColumnElement[float]:
    return (now() - since).label("age")


def _is_resumed_from(job_id: InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """Whether an active job resumes from the checkpoints of this job."""
    later = aliased(Job)
    return (
        select(later.id)
        .where(later.continues == job_id, later.state.in_(ACTIVE_STATES))
        .correlate(job_id.class_)
        .exists()
    )


def _finished_before(days: float) -> ColumnElement[bool]:
    """Whether the sweep finished more than `days` ago."""
    finished = Sweep.finished_at < now() - days * _DAY_SECONDS
    return and_(Sweep.state == SweepState.FINISHED, finished)


def _ended_before(days: float) -> ColumnElement[bool]:
    """Whether the job ended more than `days` ago.

    Without conditions on its kind and state: with their index, SQLite would read every ended job.
    """
    return Job.finished_at < now() - days * _DAY_SECONDS
