"""Operations on annotations: lease texts, label, undo, and list what was said of them."""

from collections.abc import Sequence, Set
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.database.base import read_clock
from app.database.engines import Database
from app.http.dependencies import Caller
from app.labeling import repository
from app.labeling.errors import (
    AnnotationNotFound,
    TextNotInPool,
    TooManyAnnotators,
    UnknownProjectLabel,
    WrongAnnotationField,
)
from app.labeling.pools import LabelingPools, NewChosenTexts, Pool
from app.labeling.repository import NewChosenText, TextToLabel
from app.labeling.schemas import (
    AnnotationUpdate,
    AnnotationView,
    ChosenTextReason,
    LabelingTaskType,
    LeasedTexts,
    ShownValue,
)
from app.labeling.service import (
    ProjectWithDatasetAndJob,
    get_project_with_dataset_and_job,
    open_pool,
)
from app.labeling.tables import LabelingAnnotation, LabelingProject
from app.labeling.views import TextWithSuggestion, annotation_view
from app.privacy import repository as privacy
from app.privacy.text_hashes import InputHashes

LEASE_SECONDS = 600.0  # a text that an annotator holds comes back after this
MAX_ANNOTATORS = 100  # of a project
_MAX_ROUNDS = 100  # in which others may choose texts first
_SHOWN_LABELS = 20  # in an error
_TASK_FIELDS: dict[LabelingTaskType, tuple[str, str]] = {
    "single_label": ("label", "`label`, one of its labels"),
    "multi_label": ("labels", "`labels`, a list"),
    "regression": ("value", "`value`, a number"),
}


# -- Annotators, and the texts that they get ------------------------------------------------------


def annotator_name(caller: Caller, annotator: str | None) -> str:
    """Return who labels: the name of the API key, or `key/annotator`."""
    return caller.name if annotator is None else f"{caller.name}/{annotator}"


class LeaseResult(NamedTuple):
    """Texts that an annotator has, and until when."""

    pool: Pool
    project: LabelingProject
    texts: list[TextToLabel]
    expires_at: float


def lease_texts_with_suggestions(
    database: Database,
    pools: LabelingPools,
    *,
    name: str,
    annotator: str,
    count: int,
    own_only: str | None = None,
) -> LeasedTexts:
    """Return texts to label, with suggestions unless their labels measure something.

    With `own_only`, similar texts are those that this key labeled. Raises what `lease_texts`
    raises.
    """
    leased = lease_texts(database, pools, name=name, annotator=annotator, count=count)
    pool, fitted = leased.pool, leased.pool.fitted
    found = [(each, pool.texts.find_index_of_row(each.row)) for each in leased.texts]
    described = [
        TextWithSuggestion.of(
            pool, None if each.is_measurement else fitted, index, each.reason, own_only=own_only
        )
        for each, index in found
        if index is not None
    ]
    project = leased.project
    with database.read() as session:
        done = repository.count_annotated_or_forgotten_texts(session, project.id)
        rows = {row for each in described for row in each.nearest_rows}
        hidden = repository.find_forgotten_rows(session, project.id, rows) if rows else frozenset()
    labels = project.labels
    return LeasedTexts(
        texts=[each.view(labels, leased.expires_at, hidden) for each in described],
        remaining=len(pool.texts) - done,
    )


def lease_texts(
    database: Database, pools: LabelingPools, *, name: str, annotator: str, count: int
) -> LeaseResult:
    """Return texts to label, which others do not get before the lease expires.

    First those that the annotator has and did not label, then those that others gave back or that
    want a second annotator, then new ones. New ones are chosen before the transaction that stores
    them. If somebody else has stored some by then, the choice is made again.

    Raises `LabelingProjectNotFound`, `LabelingDatasetDeleted`, `TooManyAnnotators`, and what
    `LabelingPools.open` raises.
    """
    with database.read() as session:
        opened = get_project_with_dataset_and_job(session, name)
    pool = open_pool(pools, opened)
    pools.refit_if_stale(pool, opened.project.changes)
    chosen: NewChosenTexts | None = None
    for _ in range(_MAX_ROUNDS):
        with database.write() as session:
            leased = _lease_stored(session, pool, name, annotator, count, chosen)
        missing = count - len(leased.texts)
        if not missing:
            break
        chosen = pool.choose(database, missing)
        if not chosen.choices:
            break
    return leased


def _lease_stored(
    session: Session,
    pool: Pool,
    name: str,
    annotator: str,
    count: int,
    chosen: NewChosenTexts | None,
) -> LeaseResult:
    """Store new choices, unless others were stored since, and lease what is open."""
    if chosen is not None:
        privacy.lock_text_storage(session)  # before the project, as forgetting does
    project = repository.lock_project(session, name, project_id=pool.project_id)
    if chosen is None:
        _check_annotators(session, project, annotator)
    elif chosen.position == project.chosen:
        hashes = (each for choice in chosen.choices for each in choice.hashes.all)
        forgotten = privacy.find_forgotten_hashes(session, hashes)
        repository.add_chosen_texts(
            session, project, [_hide(each, forgotten) for each in chosen.choices]
        )
    texts = repository.list_leased_texts(session, project.id, annotator, limit=count)
    if len(texts) < count:
        texts += repository.list_available_texts(
            session, project.id, annotator, limit=count - len(texts)
        )
    rows = [each.row for each in texts]
    expires_at = repository.insert_or_renew_leases(
        session, project.id, rows, annotator, seconds=LEASE_SECONDS
    )
    return LeaseResult(pool, project, texts, expires_at)


def _hide(choice: NewChosenText, forgotten: Set[str]) -> NewChosenText:
    if forgotten.isdisjoint(choice.hashes.all):
        return choice
    return choice._replace(wanted=0, hidden=True)


def _check_annotators(session: Session, project: LabelingProject, annotator: str) -> None:
    """Delete expired leases. Raise `TooManyAnnotators` if somebody new is one too many."""
    repository.delete_expired_leases(session, project.id)
    if repository.is_annotator(session, project.id, annotator):
        return
    if repository.count_annotators(session, project.id) >= MAX_ANNOTATORS:
        raise TooManyAnnotators(name=project.name, limit=MAX_ANNOTATORS)


# -- Annotations ----------------------------------------------------------------------------------


def upsert_annotation(  # noqa: PLR0913
    session: Session,
    *,
    name: str,
    project_id: UUID,
    row: int,
    body: AnnotationUpdate,
    annotator: str,
    caller: Caller,
    hashes: InputHashes | None,
) -> LabelingAnnotation:
    """Store what an annotator says of a text; the newest wins, whether or not there is a lease.

    `hashes` are those of the text, needed if it was not chosen before. Raises
    `LabelingProjectNotFound`, `TextNotInPool`, `UnknownProjectLabel`, `WrongAnnotationField`,
    `TooManyAnnotators`.
    """
    if hashes is not None:
        privacy.lock_text_storage(session)  # before the project, as forgetting does
    project = repository.lock_project(session, name, project_id=project_id)
    value = _validated_value(project, body)
    choice = repository.find_chosen_text(session, project.id, row)
    if choice is None and hashes is not None:
        if privacy.find_forgotten_hashes(session, hashes.all):
            raise TextNotInPool(name=name, row=row)
        requested = body.reason not in (None, ChosenTextReason.RANDOM)
        reason = body.reason if requested and body.reason else ChosenTextReason.REQUESTED
        repository.add_chosen_texts(session, project, [NewChosenText(row, reason, hashes, 1)])
        choice = repository.find_chosen_text(session, project.id, row)
    if choice is None or choice.hidden:
        raise TextNotInPool(name=name, row=row)
    annotation = repository.find_annotation(session, project.id, row, annotator)
    if annotation is None:
        _check_annotators(session, project, annotator)
        annotation = LabelingAnnotation(
            project_id=project.id,
            row=row,
            annotator=annotator,
            created_by=caller.id,
            reason=choice.reason,
        )
        session.add(annotation)
        choice.missing -= 1
    elif annotation.value == value and annotation.suggested == body.suggested:
        return annotation  # sent again
    annotation.value, annotation.suggested = value, body.suggested
    annotation.created_by, annotation.at = caller.id, read_clock(session)
    repository.end_lease(session, project.id, row, annotator)
    repository.increment_change_count(session, project)
    return annotation


def _validated_value(project: LabelingProject, body: AnnotationUpdate) -> ShownValue | None:
    """Return the label to store; None: skipped."""
    if body.skipped:
        return None
    field, wanted = _TASK_FIELDS[project.task]  # type: ignore[index]  # one of these
    given: dict[str, Any] = {each: getattr(body, each) for each, _ in _TASK_FIELDS.values()}
    [sent] = [each for each, value in given.items() if value is not None]
    if sent != field:
        raise WrongAnnotationField(name=project.name, task=project.task, wanted=wanted, sent=sent)
    if body.value is not None:
        return body.value
    names = [body.label] if body.label is not None else body.labels or []
    known = set(project.labels)
    for label in names:
        if label not in known:
            raise UnknownProjectLabel(
                label=label, name=project.name, labels=_listed(project.labels)
            )
    return body.label if body.label is not None else sorted(set(names))


def _listed(labels: Sequence[str]) -> str:
    if not labels:
        return "no labels yet"
    more = f" and {len(labels) - _SHOWN_LABELS:,} more" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(map(repr, labels[:_SHOWN_LABELS])) + more


def annotation_views(
    pools: LabelingPools,
    opened: ProjectWithDatasetAndJob,
    annotations: Sequence[LabelingAnnotation],
) -> list[AnnotationView]:
    """Return annotations with their texts, unless the dataset was deleted."""
    if not annotations or opened.dataset.deleted_at is not None:
        return [annotation_view(each) for each in annotations]
    texts = pools.open(*opened).texts
    indices = [texts.find_index_of_row(each.row) for each in annotations]
    return [
        annotation_view(each, None if index is None else texts[index])
        for each, index in zip(annotations, indices, strict=True)
    ]


def get_text_hashes(
    pools: LabelingPools, opened: ProjectWithDatasetAndJob, row: int
) -> InputHashes:
    """Return the hashes of a text of the pool. Raises `TextNotInPool`, `LabelingDatasetDeleted`."""
    pool = open_pool(pools, opened)
    index = pool.texts.find_index_of_row(row)
    if index is None:
        raise TextNotInPool(name=opened.project.name, row=row)
    return pool.hash_text_at(index)


def delete_annotation_and_lease_text(
    session: Session, *, name: str, row: int, annotator: str
) -> None:
    """Undo what an annotator said of a text; the annotator holds it again.

    Raises `LabelingProjectNotFound`, `AnnotationNotFound`.
    """
    project = repository.lock_project(session, name)
    annotation = repository.find_annotation(session, project.id, row, annotator)
    if annotation is None:
        raise AnnotationNotFound(annotator=annotator, row=row, name=name)
    session.delete(annotation)
    choice = repository.find_chosen_text(session, project.id, row)
    if choice is not None:
        choice.missing += 1
    repository.insert_or_renew_leases(session, project.id, [row], annotator, seconds=LEASE_SECONDS)
    repository.increment_change_count(session, project)
