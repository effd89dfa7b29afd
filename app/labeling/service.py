"""Operations on labeling projects: create, read, add labels, delete."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.engines import Database, acquire_transaction_lock, call_after_commit
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import pretrained_bases
from app.jobs import repository as jobs
from app.jobs.errors import TooManyJobs
from app.jobs.pretrained_bases import ResolvedBase
from app.jobs.service import insert_and_enqueue
from app.labeling import repository
from app.labeling.errors import (
    DatasetHasLabels,
    LabelingDatasetDeleted,
    LabelingNameTaken,
    PoolTooLarge,
    RanksNotInOrder,
    RegressionHasNoLabels,
    TooManyLabels,
)
from app.labeling.pools import LabelingPools, Pool
from app.labeling.repository import LabelingCounts, LabelTextCounts
from app.labeling.resolved_labels import list_label_pairs_for_kappa, resolve_labels
from app.labeling.schemas import (
    MAX_LABELS,
    MAX_TEXTS,
    LabelingCreate,
    LabelingTaskType,
    LabelingUpdate,
    LabelingView,
)
from app.labeling.tables import LabelingProject
from app.labeling.views import (
    ProjectViewData,
    dataset_ref,
    project_url_path,
    project_view,
)
from app.queue.dispatch import WorkerNotifier
from app.queue.enums import DeviceClass, JobKind
from app.queue.tables import Job
from app.settings import Settings
from lora_core.data.split import are_labels_numeric, sort_label_names
from lora_core.specs.embed import EmbedSpec
from lora_core.specs.predict import PredictDataSpec

MAX_LISTED = 10  # ranks in a message
_METHOD = "embed"  # in the column that holds baseline, lora or full for a job


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
    `DatasetNotFound`, `DatasetHasLabels`, `PoolTooLarge`, `RanksNotInOrder`, `TooManyJobs`,
    `BaseNotFound`, and what `idempotency.reserve` raises.
    """
    idempotency.reserve(session, call)
    pretrained_bases.check_base_not_deleted(session, base)
    dataset = _find_pool(session, body.dataset)
    acquire_transaction_lock(session, f"labeling project {body.name}")
    if repository.find_project(session, body.name) is not None:
        raise LabelingNameTaken(name=body.name)
    labels = _in_order(body.labels, ordered=body.task.ordered)
    if labels != body.labels and not are_labels_numeric(labels):
        raise RanksNotInOrder(ranks=" < ".join(labels[:MAX_LISTED]), at="labels")
    project = LabelingProject(
        created_by=call.caller_id,
        name=body.name,
        dataset_id=dataset.id,
        task=body.task.type,
        ordered=body.task.ordered,
        labels=labels,
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
    view = project_view(project, ProjectViewData(dataset, job, LabelingCounts()))
    idempotency.save_response(
        session, call, status=201, body=view, location=project_url_path(project.name)
    )
    _audit(session, "labeling_created", project.name, dataset=view.dataset)
    return view


def _find_pool(session: Session, ref: str) -> Dataset:
    dataset = datasets.resolve_dataset(session, ref)
    if not datasets.lock_against_deletion(session, dataset.id):
        raise DatasetNotFound(ref=repr(ref))
    name = dataset_ref(dataset)
    if dataset.label_column is not None:
        raise DatasetHasLabels(ref=name, at="dataset")
    if dataset.rows > MAX_TEXTS:
        raise PoolTooLarge(ref=name, texts=dataset.rows, limit=MAX_TEXTS, at="dataset")
    return dataset


def _in_order(labels: Sequence[str], *, ordered: bool) -> list[str]:
    """Return the labels as given; ranks in the order in which a training reads them."""
    return list(sort_label_names(labels, ordered=True)) if ordered else list(labels)


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
    _lock_vectors(session, identity)
    if (found := repository.find_reusable_embedding_job(session, identity)) is not None:
        return found
    acquire_transaction_lock(session, f"jobs of {owner}")
    if jobs.count_active_jobs_of_caller(session, owner) >= settings.max_jobs_per_key:
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
    insert_and_enqueue(session, job, created_by=owner, notifier=notifier)
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


def _lock_vectors(session: Session, identity: str | None) -> None:
    acquire_transaction_lock(session, f"vectors {identity}")


class ProjectWithDatasetAndJob(NamedTuple):
    """A project with the rows that it refers to."""

    project: LabelingProject
    dataset: Dataset
    job: Job | None  # that computes the vectors


def get_project_with_dataset_and_job(session: Session, name: str) -> ProjectWithDatasetAndJob:
    """Return a project with its dataset and job. Raises `LabelingProjectNotFound`."""
    project = repository.get_project(session, name)
    dataset = repository.get_project_datasets(session, [project])[project.dataset_id]
    return ProjectWithDatasetAndJob(
        project, dataset, repository.get_embedding_jobs(session, [project]).get(project.job_id)  # type: ignore[arg-type]
    )  # fmt: skip


def open_pool(pools: LabelingPools, opened: ProjectWithDatasetAndJob) -> Pool:
    """Return the texts of a project.

    Raises `LabelingDatasetDeleted`, and what `LabelingPools.open` raises.
    """
    project, dataset, job = opened
    if dataset.deleted_at is not None:
        raise LabelingDatasetDeleted(name=project.name, ref=dataset_ref(dataset))
    return pools.open(project, dataset, job)


def get_project_view_after_refit(
    database: Database, pools: LabelingPools, *, name: str, own_only: str | None = None
) -> LabelingView:
    """Return a project, with the accuracy so far; with `own_only`, the annotators of that key.

    Raises `LabelingProjectNotFound`, and what `LabelingPools.open` raises.
    """
    with database.read() as session:
        opened = get_project_with_dataset_and_job(session, name)
        project = opened.project
        counts = repository.count_labeled_and_skipped(session, [project]).get(
            project.id, LabelingCounts()
        )
        tallies = repository.tally_single_annotator_labels(session, project.id)
        shared = repository.read_labels(session, project.id, shared_only=True)
        annotators = repository.count_by_annotator(session, project.id, key_name=own_only)
    task: LabelingTaskType = project.task  # type: ignore[assignment]  # one of these
    resolved = resolve_labels(shared, task)
    pool = None
    if counts.labeled and opened.dataset.deleted_at is None and _has_vectors(opened.job):
        pool = pools.open(*opened)
        pools.refit_if_stale(pool, project.changes, wait=True)
    facts = ProjectViewData(
        opened.dataset,
        opened.job,
        counts,
        annotators,
        [
            *tallies,
            *(LabelTextCounts(each.json_value, 1, int(each.is_random)) for each in resolved),
        ],
        list_label_pairs_for_kappa(shared, task),
        None if pool is None else pool.fitted,
    )
    return project_view(project, facts)


def project_view_fingerprint(opened: ProjectWithDatasetAndJob) -> tuple[object, ...]:
    """Return what is different whenever the view of a project is, without reading its labels."""
    project, dataset, job = opened
    vectors = job and (job.id, job.state, job.step, job.error_message, job.artifact_id)
    return project.id, project.changes, len(project.labels), dataset.deleted_at, vectors


def _has_vectors(job: Job | None) -> bool:
    return job is not None and job.artifact_id is not None


def add_project_labels(session: Session, *, name: str, body: LabelingUpdate) -> None:
    """Add labels; those that the project has already change nothing.

    Raises `LabelingProjectNotFound`, `RegressionHasNoLabels`, `TooManyLabels`.
    """
    project = repository.lock_project(session, name)
    if body.add_labels and project.task == "regression":
        raise RegressionHasNoLabels(name=name)
    labels = list(dict.fromkeys([*project.labels, *body.add_labels]))
    if len(labels) > MAX_LABELS:
        raise TooManyLabels(name=name, count=len(labels), limit=MAX_LABELS)
    if len(labels) > len(project.labels):
        project.labels = _in_order(labels, ordered=project.ordered)
        session.flush()
        _audit(session, "labeling_updated", name, labels=len(labels))


def ensure_embedding_job(
    session: Session,
    *,
    name: str,
    base: ResolvedBase,
    settings: Settings,
    notifier: WorkerNotifier,
    owner: UUID,
) -> None:
    """Queue a job that computes the vectors, unless they exist or are being computed.

    Raises `LabelingProjectNotFound`, `LabelingDatasetDeleted`, `BaseNotFound`, `TooManyJobs`.
    """
    project = repository.lock_project(session, name)
    pretrained_bases.check_base_not_deleted(session, base)
    dataset = repository.get_project_datasets(session, [project])[project.dataset_id]
    if not datasets.lock_against_deletion(session, dataset.id):
        raise LabelingDatasetDeleted(name=name, ref=dataset_ref(dataset))
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
    if job_id is not None:
        # A project that is being stored may have taken them.
        _lock_vectors(session, session.get_one(Job, job_id).trial_sha256)
        if not repository.is_embedding_job_used(session, job_id):
            jobs.request_cancel(session, job_id)  # a finished one stays as it is
    _audit(session, "labeling_deleted", name)


def _audit(session: Session, action: str, name: str, **fields: object) -> None:
    call_after_commit(session, partial(logging.write_audit_line, action, project=name, **fields))
