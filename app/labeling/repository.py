"""SQL of labeling projects. Whatever changes a project locks its row first."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    distinct,
    func,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.orm import Session, aliased

from app.database.base import now
from app.datasets.tables import Dataset
from app.labeling.errors import LabelingProjectNotFound
from app.labeling.schemas import ChosenTextReason
from app.labeling.tables import (
    LabelingAnnotation,
    LabelingChosenText,
    LabelingLease,
    LabelingProject,
)
from app.privacy.text_hashes import InputHashes
from app.queue.enums import JobKind, JobState
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import Job
from app.storage import repository as artifacts
from app.storage.store import Store

_LEASE_COLUMNS = (LabelingChosenText.row, LabelingChosenText.reason)


# -- Projects -------------------------------------------------------------------------------------


def find_project(session: Session, name: str) -> LabelingProject | None:
    """Return the project of a name."""
    return session.scalar(select(LabelingProject).where(LabelingProject.name == name))


def get_project(session: Session, name: str) -> LabelingProject:
    """Return the project of a name. Raises `LabelingProjectNotFound`."""
    project = find_project(session, name)
    if project is None:
        raise LabelingProjectNotFound(name=repr(name[:64]))
    return project


def lock_project(session: Session, name: str, *, project_id: UUID | None = None) -> LabelingProject:
    """Return the project, locked until the end of the transaction.

    Raises `LabelingProjectNotFound`, also if `project_id` was deleted and its name is taken again.
    """
    statement = select(LabelingProject).where(LabelingProject.name == name).with_for_update()
    project = session.scalar(statement.execution_options(populate_existing=True))
    if project is None or project_id not in (None, project.id):
        raise LabelingProjectNotFound(name=repr(name[:64]))
    return project


def list_projects(session: Session, *, after: UUID | None, limit: int) -> Sequence[LabelingProject]:
    """Return the newest projects first."""
    statement = select(LabelingProject).order_by(LabelingProject.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(LabelingProject.id < after)
    return session.scalars(statement).all()


def get_project_datasets(
    session: Session, projects: Collection[LabelingProject]
) -> dict[UUID, Dataset]:
    """Return the datasets of projects, deleted ones too."""
    ids = {project.dataset_id for project in projects}
    return {each.id: each for each in session.scalars(select(Dataset).where(Dataset.id.in_(ids)))}


def filter_project_ids_with_dataset(session: Session, ids: Collection[UUID]) -> frozenset[UUID]:
    """Return which of these projects exist, on a dataset that was not deleted."""
    statement = select(LabelingProject.id).join(Dataset, Dataset.id == LabelingProject.dataset_id)
    kept = statement.where(LabelingProject.id.in_(ids), Dataset.deleted_at.is_(None))
    return frozenset(session.scalars(kept))


def delete_project(session: Session, project: LabelingProject) -> None:
    """Delete a project with all its labels."""
    session.execute(
        delete(LabelingProject).where(LabelingProject.id == project.id),
        execution_options=NO_SESSION_SYNC,
    )


# -- Jobs that compute the vectors ----------------------------------------------------------------


def find_reusable_embedding_job(session: Session, identity: str) -> Job | None:
    """Return the newest job that has computed or will compute these vectors."""
    has_result = and_(Job.state == JobState.SUCCEEDED, Job.artifact_id.is_not(None))
    waits = and_(
        Job.state.in_((JobState.QUEUED, JobState.RUNNING)), Job.cancel_requested_at.is_(None)
    )
    return session.scalars(
        select(Job)
        .where(Job.kind == JobKind.EMBEDDING, Job.trial_sha256 == identity, has_result | waits)
        .order_by(Job.id.desc())
        .limit(1)
        .with_for_update(read=True, key_share=True)  # retention cannot delete it now
    ).first()


def get_embedding_jobs(session: Session, projects: Collection[LabelingProject]) -> dict[UUID, Job]:
    """Return the jobs of projects by id."""
    ids = {project.job_id for project in projects if project.job_id is not None}
    return {each.id: each for each in session.scalars(select(Job).where(Job.id.in_(ids)))}


def remove_vectors(session: Session, store: Store, job_id: UUID, artifact_id: UUID) -> None:
    """Delete the result of a job, unless that was done meanwhile."""
    removed = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.artifact_id == artifact_id)
        .values(artifact_id=None)
        .returning(Job.id),
        execution_options=NO_SESSION_SYNC,
    )
    if removed.all():
        artifacts.delete_unused_artifacts(session, store, [artifact_id])


def is_embedding_job_used(session: Session, job_id: UUID) -> bool:
    """Return whether a project uses the vectors of a job."""
    users = select(LabelingProject.id).where(LabelingProject.job_id == job_id)
    return session.scalars(users.limit(1)).first() is not None


# -- Counts ---------------------------------------------------------------------------------------


class LabelingCounts(NamedTuple):
    """How many texts of a project were labeled, and how many only skipped."""

    labeled: int = 0
    skipped: int = 0


def count_labeled_and_skipped(
    session: Session, projects: Collection[LabelingProject]
) -> dict[UUID, LabelingCounts]:
    """Return the number of labeled and of skipped texts by project."""
    annotation = LabelingAnnotation
    is_labeled = func.max(case((annotation.value.is_not(None), 1), else_=0)).label("is_labeled")
    texts = (
        select(annotation.project_id, is_labeled)
        .where(annotation.project_id.in_([project.id for project in projects]))
        .group_by(annotation.project_id, annotation.row)
        .subquery()
    )
    rows = session.execute(
        select(texts.c.project_id, func.sum(texts.c.is_labeled), func.count()).group_by(
            texts.c.project_id
        )
    )
    return {
        project_id: LabelingCounts(int(labeled), int(total - labeled))
        for project_id, labeled, total in rows
    }


def count_by_annotator(
    session: Session, project_id: UUID, *, key_name: str | None = None
) -> list[tuple[str, int, int]]:
    """Return (annotator, labeled, skipped), by name; with `key_name`, those of one API key."""
    annotation = LabelingAnnotation
    labeled = func.sum(case((annotation.value.is_not(None), 1), else_=0))
    statement = (
        select(annotation.annotator, labeled, func.count())
        .where(annotation.project_id == project_id)
        .group_by(annotation.annotator)
        .order_by(annotation.annotator)
    )
    if key_name is not None:
        statement = statement.where(_is_of_key(key_name))
    return [
        (name, int(labeled), int(total - labeled))
        for name, labeled, total in session.execute(statement)
    ]


def is_annotator(session: Session, project_id: UUID, annotator: str) -> bool:
    """Return whether somebody has labeled or holds texts of a project."""
    for table in (LabelingAnnotation, LabelingLease):
        of_annotator = (table.project_id == project_id, table.annotator == annotator)
        if session.execute(select(1).select_from(table).where(*of_annotator).limit(1)).first():
            return True
    return False


def count_annotators(session: Session, project_id: UUID) -> int:
    """Return how many annotators have labeled or hold texts of a project."""
    names = union(
        *(
            select(table.annotator).where(table.project_id == project_id)
            for table in (LabelingAnnotation, LabelingLease)
        )
    ).subquery()
    return session.scalar(select(func.count()).select_from(names)) or 0


def count_annotated_or_forgotten_texts(session: Session, project_id: UUID) -> int:
    """Return how many texts of a project somebody has labeled or skipped, or are forgotten."""
    annotated = select(func.count(distinct(LabelingAnnotation.row))).where(
        LabelingAnnotation.project_id == project_id
    )
    hidden = select(func.count()).where(  # without annotations
        LabelingChosenText.project_id == project_id, LabelingChosenText.hidden
    )
    return (session.scalar(annotated) or 0) + (session.scalar(hidden) or 0)


def find_forgotten_rows(
    session: Session, project_id: UUID, rows: Collection[int]
) -> frozenset[int]:
    """Return which of these texts are forgotten."""
    statement = select(LabelingChosenText.row).where(
        LabelingChosenText.project_id == project_id,
        LabelingChosenText.row.in_(rows),
        LabelingChosenText.hidden,
    )
    return frozenset(session.scalars(statement))


# -- Choices and leases ---------------------------------------------------------------------------


class NewChosenText(NamedTuple):
    """A text that was just chosen."""

    row: int
    reason: ChosenTextReason
    hashes: InputHashes
    wanted: int  # annotations
    hidden: bool = False  # it was forgotten before it was chosen


class TextToLabel(NamedTuple):
    """A chosen text that an annotator may label."""

    row: int
    reason: ChosenTextReason
    labeled_by_others: bool

    @property
    def is_measurement(self) -> bool:
        """Whether the label measures accuracy or agreement, which a suggestion would flatter."""
        return self.reason is ChosenTextReason.RANDOM or self.labeled_by_others


def list_chosen_texts(
    session: Session, project_id: UUID, *, since: int
) -> list[tuple[int, int, bool]]:
    """Return (position, row, whether it is random) of the texts chosen from a position on."""
    statement = select(
        LabelingChosenText.position, LabelingChosenText.row, LabelingChosenText.reason
    ).where(LabelingChosenText.project_id == project_id, LabelingChosenText.position >= since)
    rows = session.execute(statement.order_by(LabelingChosenText.position))
    return [(position, row, reason == ChosenTextReason.RANDOM) for position, row, reason in rows]


def add_chosen_texts(
    session: Session, project: LabelingProject, choices: Sequence[NewChosenText]
) -> None:
    """Insert the next choices of a project that is locked."""
    for offset, choice in enumerate(choices):
        session.add(
            LabelingChosenText(
                project_id=project.id,
                row=choice.row,
                position=project.chosen + offset,
                reason=choice.reason,
                text_hash=choice.hashes.whole,
                first_hash=choice.hashes.first,
                second_hash=choice.hashes.second,
                missing=choice.wanted,
                hidden=choice.hidden,
            )
        )
    project.chosen += len(choices)
    session.flush()


def find_chosen_text(session: Session, project_id: UUID, row: int) -> LabelingChosenText | None:
    """Return the choice of a text, if it was chosen."""
    return session.get(LabelingChosenText, (project_id, row))


def list_leased_texts(
    session: Session, project_id: UUID, annotator: str, *, limit: int
) -> list[TextToLabel]:
    """Return what an annotator holds and still has to label, in the order of choice."""
    rows = session.execute(
        select(*_LEASE_COLUMNS, _is_labeled())
        .join(LabelingLease, _same_text(LabelingLease))
        .where(
            LabelingChosenText.project_id == project_id,
            LabelingLease.annotator == annotator,
            LabelingChosenText.missing > 0,
            ~LabelingChosenText.hidden,
            ~_annotated_by(annotator),
        )
        .order_by(LabelingChosenText.position)
        .limit(limit)
    )
    return [TextToLabel(row, ChosenTextReason(reason), labeled) for row, reason, labeled in rows]


def list_available_texts(
    session: Session, project_id: UUID, annotator: str, *, limit: int
) -> list[TextToLabel]:
    """Return chosen texts that an annotator may take, in the order of choice.

    They still miss an annotation, and nobody else who holds them is about to give it.
    """
    lease = aliased(LabelingLease)
    holders = (
        select(func.count())
        .where(
            lease.project_id == LabelingChosenText.project_id,
            lease.row == LabelingChosenText.row,
            lease.expires_at > now(),
        )
        .correlate(LabelingChosenText)
        .scalar_subquery()
    )
    own = (
        select(1)
        .where(_same_text(LabelingLease), LabelingLease.annotator == annotator)
        .correlate(LabelingChosenText)
        .exists()
    )
    rows = session.execute(
        select(*_LEASE_COLUMNS, _is_labeled())
        .where(
            LabelingChosenText.project_id == project_id,
            LabelingChosenText.missing > 0,
            ~LabelingChosenText.hidden,
            ~_annotated_by(annotator),
            ~own,
            holders < LabelingChosenText.missing,
        )
        .order_by(LabelingChosenText.position)
        .limit(limit)
    )
    return [TextToLabel(row, ChosenTextReason(reason), labeled) for row, reason, labeled in rows]


def delete_expired_leases(session: Session, project_id: UUID) -> None:
    """Give back what annotators no longer hold."""
    session.execute(
        delete(LabelingLease).where(
            LabelingLease.project_id == project_id, LabelingLease.expires_at <= now()
        ),
        execution_options=NO_SESSION_SYNC,
    )


def insert_or_renew_leases(
    session: Session, project_id: UUID, rows: Collection[int], annotator: str, *, seconds: float
) -> float:
    """Lease texts of a project that is locked, again or anew; return when the leases expire."""
    expires_at: float = session.scalars(select(now() + seconds)).one()
    if not rows:
        return expires_at
    of_annotator = (LabelingLease.project_id == project_id, LabelingLease.annotator == annotator)
    renewed = session.scalars(
        update(LabelingLease)
        .where(*of_annotator, LabelingLease.row.in_(rows))
        .values(expires_at=expires_at)
        .returning(LabelingLease.row),
        execution_options=NO_SESSION_SYNC,
    ).all()
    for row in set(rows) - set(renewed):
        session.add(
            LabelingLease(
                project_id=project_id, row=row, annotator=annotator, expires_at=expires_at
            )
        )
    session.flush()
    return expires_at


def end_lease(session: Session, project_id: UUID, row: int, annotator: str) -> None:
    """Delete the lease of one annotator on one text, if there is one."""
    session.execute(
        delete(LabelingLease).where(
            LabelingLease.project_id == project_id,
            LabelingLease.row == row,
            LabelingLease.annotator == annotator,
        ),
        execution_options=NO_SESSION_SYNC,
    )


def _same_text(table: type[LabelingLease] | type[LabelingAnnotation]) -> ColumnElement[bool]:
    return and_(
        table.project_id == LabelingChosenText.project_id, table.row == LabelingChosenText.row
    )


def _annotated_by(annotator: str) -> ColumnElement[bool]:
    return _has_annotation(LabelingAnnotation.annotator == annotator)


def _is_labeled() -> ColumnElement[bool]:
    return _has_annotation(LabelingAnnotation.value.is_not(None))


def _has_annotation(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return (
        select(1)
        .where(_same_text(LabelingAnnotation), condition)
        .correlate(LabelingChosenText)
        .exists()
    )


# -- Annotations ----------------------------------------------------------------------------------


class AnnotatorLabel(NamedTuple):
    """What one annotator says of one text: a label, a list of labels, a number, None if skipped."""

    row: int
    value: Any
    annotator: str
    reason: ChosenTextReason


def find_annotation(
    session: Session, project_id: UUID, row: int, annotator: str
) -> LabelingAnnotation | None:
    """Return what an annotator says of a text."""
    return session.scalar(
        select(LabelingAnnotation).where(
            LabelingAnnotation.project_id == project_id,
            LabelingAnnotation.row == row,
            LabelingAnnotation.annotator == annotator,
        )
    )


def list_annotations(
    session: Session,
    project_id: UUID,
    *,
    after: UUID | None,
    limit: int,
    key_name: str | None = None,
) -> Sequence[LabelingAnnotation]:
    """Return the newest annotations first; with `key_name`, those of one API key."""
    statement = select(LabelingAnnotation).where(LabelingAnnotation.project_id == project_id)
    if after is not None:
        statement = statement.where(LabelingAnnotation.id < after)
    if key_name is not None:
        statement = statement.where(_is_of_key(key_name))
    return session.scalars(statement.order_by(LabelingAnnotation.id.desc()).limit(limit)).all()


def _is_of_key(name: str) -> ColumnElement[bool]:
    prefix = f"{name}/"  # not by LIKE, which ignores case on SQLite
    return func.substr(LabelingAnnotation.annotator + "/", 1, len(prefix)) == prefix


def read_labels(
    session: Session, project_id: UUID, *, shared_only: bool = False
) -> Mapping[int, list[AnnotatorLabel]]:
    """Return all labels of a project by row, skipped texts left out, the oldest first.

    With `shared_only`, those of texts that several annotators have labeled.
    """
    annotation = LabelingAnnotation
    statement = (
        select(annotation.row, annotation.value, annotation.annotator, annotation.reason)
        .where(*_is_label(project_id))
        .order_by(annotation.row, annotation.at, annotation.id)
    )
    if shared_only:
        statement = statement.where(annotation.row.in_(_shared_rows(project_id)))
    labels: defaultdict[int, list[AnnotatorLabel]] = defaultdict(list)
    for row, value, annotator, reason in session.execute(statement):
        labels[row].append(AnnotatorLabel(row, value, annotator, ChosenTextReason(reason)))
    return labels


class LabelTextCounts(NamedTuple):
    """How many texts have a label, and how many of them were drawn at random."""

    value: Any  # as stored: a label, a list of labels, a number
    texts: int
    random: int


def tally_single_annotator_labels(session: Session, project_id: UUID) -> list[LabelTextCounts]:
    """Count the texts that only one annotator has labeled, by their label.

    The database counts thousands of labels in the time in which Python reads some hundred.
    """
    annotation = LabelingAnnotation
    random = func.sum(case((annotation.reason == ChosenTextReason.RANDOM, 1), else_=0))
    rows = session.execute(
        select(annotation.value, func.count(), random)
        .where(*_is_label(project_id), annotation.row.not_in(_shared_rows(project_id)))
        .group_by(annotation.value)
    )
    return [LabelTextCounts(value, texts, int(random)) for value, texts, random in rows]


def _is_label(project_id: UUID) -> tuple[ColumnElement[bool], ...]:
    annotation = LabelingAnnotation
    return annotation.project_id == project_id, annotation.value.is_not(None)


def _shared_rows(project_id: UUID) -> Select[int]:
    row = LabelingAnnotation.row
    return select(row).where(*_is_label(project_id)).group_by(row).having(func.count() > 1)


def read_change_count(session: Session, project_id: UUID) -> int:
    """Return how often the annotations of a project were changed; 0 if it was deleted."""
    statement = select(LabelingProject.changes).where(LabelingProject.id == project_id)
    return session.scalar(statement) or 0


def increment_change_count(session: Session, project: LabelingProject) -> None:
    """Count a change of the annotations of a project that is locked."""
    project.changes += 1
    session.flush()


# -- Forgotten texts ------------------------------------------------------------------------------


def forget_texts_by_hashes(session: Session, hashes: Sequence[str]) -> int:
    """Delete the annotations of texts with these hashes, and of pairs with one of them, and hide
    them in all projects; return how many annotations there were."""
    has_text = or_(
        *(
            column.in_(hashes)
            for column in (
                LabelingChosenText.text_hash,
                LabelingChosenText.first_hash,
                LabelingChosenText.second_hash,
            )
        )
    )
    chosen = session.execute(
        select(LabelingChosenText.project_id, LabelingChosenText.row).where(has_text)
    ).all()
    projects = sorted({project_id for project_id, _ in chosen})  # in one order: no deadlock
    session.execute(
        update(LabelingProject)
        .where(LabelingProject.id.in_(projects))
        .values(changes=LabelingProject.changes + 1),
        execution_options=NO_SESSION_SYNC,
    )
    deleted = 0
    for project_id, row in chosen:
        for table in (LabelingAnnotation, LabelingLease):
            found = delete(table).where(table.project_id == project_id, table.row == row)
            result = session.execute(found, execution_options=NO_SESSION_SYNC)
            deleted += result.rowcount if table is LabelingAnnotation else 0  # type: ignore[attr-defined]
    session.execute(
        update(LabelingChosenText).where(has_text).values(hidden=True),
        execution_options=NO_SESSION_SYNC,
    )
    return deleted
