"""Operations on labeling projects: create, choose texts, label, undo, forget, delete."""

import hashlib
import json
from collections.abc import Sequence, Set
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.base import read_clock
from app.database.engines import Database, acquire_transaction_lock, after_commit
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.http.dependencies import Caller
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import pretrained_bases
from app.jobs import repository as jobs
from app.jobs.errors import TooManyJobs
from app.jobs.pretrained_bases import ResolvedBase
from app.jobs.service import enqueue
from app.labeling import repository
from app.labeling.errors import (
    AnnotationNotFound,
    DatasetHasLabels,
    LabelingNameTaken,
    NumbersHaveNoLabels,
    PoolDeleted,
    PoolTooLarge,
    TextNotInPool,
    TooManyAnnotators,
    TooManyLabels,
    UnknownLabel,
    WrongAnnotationField,
)
from app.labeling.pools import ChosenTexts, LabelingPools, Pool
from app.labeling.repository import NewChoice, OpenText
from app.labeling.resolved_labels import paired_labels, resolve_labels
from app.labeling.schemas import (
    MAX_LABELS,
    MAX_TEXTS,
    AnnotationPut,
    AnnotationView,
    LabelingCreate,
    LabelingTaskType,
    LabelingUpdate,
    LabelingView,
    LeasedTexts,
    ShownValue,
    TextReason,
)
from app.labeling.tables import LabelingAnnotation, LabelingProject
from app.labeling.views import (
    DescribedText,
    ProjectFacts,
    annotation_view,
    dataset_ref,
    project_path,
    project_view,
)
from app.privacy import repository as privacy
from app.privacy.text_hashes import InputHashes
from app.queue.dispatch import WorkerNotifier
from app.queue.states import DeviceClass, JobKind
from app.queue.tables import Job
from app.settings import Settings
from lora_core.data.split import label_names
from lora_core.specs.embed import EmbedSpec
from lora_core.specs.predict import PredictDataSpec

LEASE_SECONDS = 600.0  # a text that an annotator holds comes back after this
MAX_ANNOTATORS = 100  # of a project
_MAX_ROUNDS = 100  # in which others may choose texts first
_METHOD = "embed"  # in the column that holds baseline, lora or full for a job
_SHOWN_LABELS = 20  # in an error
_TASK_FIELDS: dict[LabelingTaskType, tuple[str, str]] = {
    "single_label": ("label", "`label`, one of its labels"),
    "multi_label": ("labels", "`labels`, a list"),
    "regression": ("value", "`value`, a number"),
}


# -- Projects -------------------------------------------------------------------------------------


def create_project(
    session: Session,
    *,
    body: LabelingCreate,
    base: ResolvedBase,
    settings: Settings,
    notifier: WorkerNotifier,
    call: IdempotentRequest,
) -> LabelingView:
    """Store a project, and queue the job that computes the vectors of its texts.

    Vectors of the same texts and the same base are used again. Raises `LabelingNameTaken`,
    `DatasetNotFound`, `DatasetHasLabels`, `PoolTooLarge`, `TooManyJobs`, `BaseNotFound`, and what
    `idempotency.reserve` raises.
    """
    idempotency.reserve(session, call)
    pretrained_bases.check_base_not_deleted(session, base)
    dataset = _find_pool(session, body.dataset)
    acquire_transaction_lock(session, f"labeling project {body.name}")
    if repository.find_project(session, body.name) is not None:
        raise LabelingNameTaken(name=body.name)
    project = LabelingProject(
        created_by=call.caller_id,
        name=body.name,
        dataset_id=dataset.id,
        task=body.task.type,
        ordered=body.task.ordered,
        labels=_in_order(body.labels, ordered=body.task.ordered),
        base=base.name,
        base_revision=base.revision,
        random_share=body.random_share,
        overlap=body.overlap,
        seed=body.seed,
        chosen=0,
        changes=0,
    )
    job = _find_or_enqueue_vectors(
        session, dataset, base, settings=settings, notifier=notifier, owner=call.caller_id
    )
    project.job_id = job.id
    session.add(project)
    session.flush()
    view = project_view(project, ProjectFacts(dataset, job, repository.TextCounts()))
    idempotency.save_response(
        session, call, status=201, body=view, location=project_path(project.name)
    )
    _audit(session, "labeling_created", project.name, dataset=view.dataset)
    return view


def _find_pool(session: Session, ref: str) -> Dataset:
    dataset = datasets.resolve_dataset(session, ref)
    if not datasets.lock_shared(session, dataset.id):
        raise DatasetNotFound(ref=repr(ref))
    name = dataset_ref(dataset)
    if dataset.label_column is not None:
        raise DatasetHasLabels(ref=name, at="dataset")
    if dataset.rows > MAX_TEXTS:
        raise PoolTooLarge(ref=name, texts=dataset.rows, limit=MAX_TEXTS, at="dataset")
    return dataset


def _in_order(labels: Sequence[str], *, ordered: bool) -> list[str]:
    """Return the labels as given; ranks in the order in which a training reads them."""
    return list(label_names(labels, ordered=True)) if ordered else list(labels)


def _find_or_enqueue_vectors(
    session: Session,
    dataset: Dataset,
    base: ResolvedBase,
    *,
    settings: Settings,
    notifier: WorkerNotifier,
    owner: UUID,
) -> Job:
    """Return the job that computes the vectors of a dataset. Raises `TooManyJobs`."""
    identity = _vectors_identity(dataset, base)
    acquire_transaction_lock(session, f"vectors {identity}")
    if (found := repository.find_vectors(session, identity)) is not None:
        return found
    acquire_transaction_lock(session, f"jobs of {owner}")
    if jobs.count_active(session, owner) >= settings.max_jobs_per_key:
        raise TooManyJobs(limit=settings.max_jobs_per_key)
    spec = EmbedSpec(
        base=base.name,
        base_revision=base.revision,
        data=PredictDataSpec(
            source=dataset_ref(dataset),
            text_column=dataset.text_column,
            text_pair_column=dataset.text_pair_column,
        ),
    )
    job = Job(
        kind=JobKind.EMBEDDING,
        user_metadata={},
        method=_METHOD,
        device_class=DeviceClass.ANY,
        spec=spec.model_dump(mode="json"),
        spec_version=spec.spec_version,
        dataset_ids={"all": str(dataset.id)},
        base=base.name,
        trial_sha256=identity,
        total_steps=dataset.rows,
    )
    enqueue(session, job, created_by=owner, notifier=notifier)
    return job


def _vectors_identity(dataset: Dataset, base: ResolvedBase) -> str:
    """Return the hash of everything that the vectors depend on."""
    facts = {
        "file": [dataset.sha256, dataset.suffix, dataset.sheet],
        "columns": [dataset.text_column, dataset.text_pair_column],
        "base": [base.name, base.content_id],
        "version": 1,  # increment it if the vectors would be others
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class OpenedProject(NamedTuple):
    """A project with the rows that it refers to."""

    project: LabelingProject
    dataset: Dataset
    job: Job | None  # that computes the vectors


def read_project(session: Session, name: str) -> OpenedProject:
    """Return a project with its dataset and job. Raises `LabelingProjectNotFound`."""
    project = repository.get_project(session, name)
    dataset = repository.get_datasets(session, [project])[project.dataset_id]
    return OpenedProject(
        project, dataset, repository.get_jobs(session, [project]).get(project.job_id)  # type: ignore[arg-type]
    )  # fmt: skip


def open_pool(pools: LabelingPools, opened: OpenedProject) -> Pool:
    """Return the texts of a project. Raises `PoolDeleted`, and what `LabelingPools.open` raises."""
    project, dataset, job = opened
    if dataset.deleted_at is not None:
        raise PoolDeleted(name=project.name, ref=dataset_ref(dataset))
    return pools.open(project, dataset, job)


def get_project(
    database: Database, pools: LabelingPools, *, name: str, own_only: UUID | None = None
) -> LabelingView:
    """Return a project, with the accuracy so far; with `own_only`, the annotators of that key.

    Raises `LabelingProjectNotFound`, and what `LabelingPools.open` raises.
    """
    with database.read() as session:
        opened = read_project(session, name)
        project = opened.project
        stored = repository.read_labels(session, project.id)
        counts = repository.count_texts(session, [project]).get(project.id)
        annotators = repository.count_by_annotator(session, project.id, created_by=own_only)
    labels = resolve_labels(stored, project.task)  # type: ignore[arg-type]
    pool = None
    if labels and opened.dataset.deleted_at is None and _has_vectors(opened.job):
        pool = pools.open(*opened)
        pools.refit_if_stale(pool, project.changes, wait=True)
    facts = ProjectFacts(
        opened.dataset,
        opened.job,
        counts or repository.TextCounts(),
        annotators,
        labels,
        paired_labels(stored, project.task),  # type: ignore[arg-type]
        None if pool is None else pool.fitted,
    )
    return project_view(project, facts)


def _has_vectors(job: Job | None) -> bool:
    return job is not None and job.artifact_id is not None


def update_project(session: Session, *, name: str, body: LabelingUpdate) -> None:
    """Add labels; those that the project has already change nothing.

    Raises `LabelingProjectNotFound`, `NumbersHaveNoLabels`, `TooManyLabels`.
    """
    project = repository.lock_project(session, name)
    if body.add_labels and project.task == "regression":
        raise NumbersHaveNoLabels(name=name)
    labels = list(dict.fromkeys([*project.labels, *body.add_labels]))
    if len(labels) > MAX_LABELS:
        raise TooManyLabels(name=name, count=len(labels), limit=MAX_LABELS)
    if len(labels) > len(project.labels):
        project.labels = _in_order(labels, ordered=project.ordered)
        session.flush()
        _audit(session, "labeling_updated", name, labels=len(labels))


def retry_vectors(
    session: Session,
    *,
    name: str,
    base: ResolvedBase,
    settings: Settings,
    notifier: WorkerNotifier,
    owner: UUID,
) -> None:
    """Queue a job that computes the vectors, unless they exist or are being computed.

    Raises `LabelingProjectNotFound`, `PoolDeleted`, `BaseNotFound`, `TooManyJobs`.
    """
    project = repository.lock_project(session, name)
    pretrained_bases.check_base_not_deleted(session, base)
    dataset = repository.get_datasets(session, [project])[project.dataset_id]
    if not datasets.lock_shared(session, dataset.id):
        raise PoolDeleted(name=name, ref=dataset_ref(dataset))
    job = _find_or_enqueue_vectors(
        session, dataset, base, settings=settings, notifier=notifier, owner=owner
    )
    project.job_id = job.id
    session.flush()


def delete_project(session: Session, *, name: str) -> None:
    """Delete a project with all its labels, and stop computing its vectors.

    Vectors that exist are kept for another project for some days. Raises
    `LabelingProjectNotFound`.
    """
    project = repository.lock_project(session, name)
    job_id = project.job_id
    repository.delete_project(session, project)
    if job_id is not None and not repository.is_job_used(session, job_id):
        jobs.request_cancel(session, job_id)  # a finished one stays as it is
    _audit(session, "labeling_deleted", name)


# -- Annotators, and the texts that they get ------------------------------------------------------


def annotator_name(caller: Caller, annotator: str | None) -> str:
    """Return who labels: the name of the API key, or `key/annotator`."""
    return caller.name if annotator is None else f"{caller.name}/{annotator}"


class Leased(NamedTuple):
    """Texts that an annotator has, and until when."""

    pool: Pool
    project: LabelingProject
    texts: list[OpenText]
    expires_at: float


def next_texts(
    database: Database, pools: LabelingPools, *, name: str, annotator: str, count: int
) -> LeasedTexts:
    """Return texts to label with suggestions. Raises what `lease_texts` raises."""
    leased = lease_texts(database, pools, name=name, annotator=annotator, count=count)
    pool, fitted = leased.pool, leased.pool.fitted
    found = [(each, pool.texts.find(each.row)) for each in leased.texts]
    described = [
        DescribedText.of(pool, fitted, index, each.reason)
        for each, index in found
        if index is not None
    ]
    project = leased.project
    with database.read() as session:
        done = repository.count_done(session, project.id)
        rows = {row for each in described for row in each.nearest_rows}
        hidden = repository.find_hidden(session, project.id, rows) if rows else frozenset()
    labels = project.labels
    return LeasedTexts(
        texts=[each.view(labels, leased.expires_at, hidden) for each in described],
        remaining=len(pool.texts) - done,
    )


def lease_texts(
    database: Database, pools: LabelingPools, *, name: str, annotator: str, count: int
) -> Leased:
    """Return texts to label, which others do not get before the lease expires.

    First those that the annotator has and did not label, then those that others gave back or that
    want a second annotator, then new ones. New ones are chosen before the transaction that stores
    them. If somebody else has stored some by then, the choice is made again.

    Raises `LabelingProjectNotFound`, `PoolDeleted`, `TooManyAnnotators`, and what
    `LabelingPools.open` raises.
    """
    with database.read() as session:
        opened = read_project(session, name)
    pool = open_pool(pools, opened)
    pools.refit_if_stale(pool, opened.project.changes)
    chosen: ChosenTexts | None = None
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
    chosen: ChosenTexts | None,
) -> Leased:
    """Store new choices, unless others were stored since, and lease what is open."""
    if chosen is not None:
        privacy.lock_texts(session)  # before the project, as forgetting does
    project = repository.lock_project(session, name)
    if project.id != pool.project_id:  # deleted, and created anew
        raise PoolDeleted(name=name, ref=name)
    if chosen is None:
        repository.delete_expired_leases(session, project.id)
        _check_annotators(session, project, annotator)
    elif chosen.position == project.chosen:
        hashes = (each for choice in chosen.choices for each in choice.hashes.all)
        forgotten = privacy.forgotten(session, hashes)
        repository.add_choices(
            session, project, [_hide(each, forgotten) for each in chosen.choices]
        )
    texts = repository.list_held_texts(session, project.id, annotator, limit=count)
    if len(texts) < count:
        texts += repository.list_open_texts(
            session, project.id, annotator, limit=count - len(texts)
        )
    rows = [each.row for each in texts]
    expires_at = repository.lease(session, project.id, rows, annotator, seconds=LEASE_SECONDS)
    return Leased(pool, project, texts, expires_at)


def _hide(choice: NewChoice, forgotten: Set[str]) -> NewChoice:
    if forgotten.isdisjoint(choice.hashes.all):
        return choice
    return choice._replace(wanted=0, hidden=True)


def _check_annotators(session: Session, project: LabelingProject, annotator: str) -> None:
    """Raise `TooManyAnnotators` if somebody new is one too many."""
    if repository.is_annotator(session, project.id, annotator):
        return
    if repository.count_annotators(session, project.id) >= MAX_ANNOTATORS:
        raise TooManyAnnotators(name=project.name, limit=MAX_ANNOTATORS)


# -- Annotations ----------------------------------------------------------------------------------


def put_annotation(  # noqa: PLR0913
    session: Session,
    *,
    name: str,
    row: int,
    body: AnnotationPut,
    annotator: str,
    caller: Caller,
    hashes: InputHashes | None,
) -> LabelingAnnotation:
    """Store what an annotator says of a text; the newest wins, whether or not there is a lease.

    `hashes` are those of the text, needed if it was not chosen before. Raises
    `LabelingProjectNotFound`, `TextNotInPool`, `UnknownLabel`, `WrongAnnotationField`,
    `TooManyAnnotators`.
    """
    if hashes is not None:
        privacy.lock_texts(session)  # before the project, as forgetting does
    project = repository.lock_project(session, name)
    value = _validated_value(project, body)
    choice = repository.get_choice(session, project.id, row)
    if choice is None and hashes is not None:
        if privacy.forgotten(session, hashes.all):
            raise TextNotInPool(name=name, row=row)
        requested = body.reason not in (None, TextReason.RANDOM)
        reason = body.reason if requested and body.reason else TextReason.REQUESTED
        repository.add_choices(session, project, [NewChoice(row, reason, hashes, 1)])
        choice = repository.get_choice(session, project.id, row)
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
    repository.count_changes(session, project)
    return annotation


def _validated_value(project: LabelingProject, body: AnnotationPut) -> ShownValue | None:
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
            raise UnknownLabel(label=label, name=project.name, labels=_listed(project.labels))
    return body.label if body.label is not None else sorted(set(names))


def _listed(labels: Sequence[str]) -> str:
    if not labels:
        return "no labels yet"
    more = f" and {len(labels) - _SHOWN_LABELS:,} more" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(map(repr, labels[:_SHOWN_LABELS])) + more


def annotation_views(
    pools: LabelingPools, opened: OpenedProject, annotations: Sequence[LabelingAnnotation]
) -> list[AnnotationView]:
    """Return annotations with their texts, unless the dataset was deleted."""
    if not annotations or opened.dataset.deleted_at is not None:
        return [annotation_view(each) for each in annotations]
    texts = pools.open(*opened).texts
    indices = [texts.find(each.row) for each in annotations]
    return [
        annotation_view(each, None if index is None else texts[index])
        for each, index in zip(annotations, indices, strict=True)
    ]


def find_hashes(pools: LabelingPools, opened: OpenedProject, row: int) -> InputHashes:
    """Return the hashes of a text of the pool. Raises `TextNotInPool`, `PoolDeleted`."""
    pool = open_pool(pools, opened)
    index = pool.texts.find(row)
    if index is None:
        raise TextNotInPool(name=opened.project.name, row=row)
    return pool.hashes(index)


def delete_annotation(session: Session, *, name: str, row: int, annotator: str) -> None:
    """Undo what an annotator said of a text; the annotator holds it again.

    Raises `LabelingProjectNotFound`, `AnnotationNotFound`.
    """
    project = repository.lock_project(session, name)
    annotation = repository.find_annotation(session, project.id, row, annotator)
    if annotation is None:
        raise AnnotationNotFound(annotator=annotator, row=row, name=name)
    session.delete(annotation)
    choice = repository.get_choice(session, project.id, row)
    if choice is not None:
        choice.missing += 1
    repository.lease(session, project.id, [row], annotator, seconds=LEASE_SECONDS)
    repository.count_changes(session, project)


def _audit(session: Session, action: str, name: str, **fields: object) -> None:
    after_commit(session, partial(logging.audit, action, project=name, **fields))
