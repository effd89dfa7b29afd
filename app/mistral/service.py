"""Create files and jobs of the Mistral API as datasets and jobs of this service."""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.engines import Database, call_after_commit
from app.datasets.multipart_upload import Upload
from app.datasets.service import detect_target_tasks, slugify
from app.datasets.tables import Dataset
from app.fine_tuning_apis import files
from app.fine_tuning_apis.base_model import resolve_base_or_default
from app.fine_tuning_apis.errors import FilesNotUsable, FineTuningJobNotFound
from app.fine_tuning_apis.events import build_warning_event
from app.fine_tuning_apis.repository import list_loss_and_accuracy_points
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import service as jobs
from app.jobs.errors import DatasetColumnsDiffer
from app.jobs.pretrained_bases import ResolvedBase
from app.jobs.repository import list_newest_events
from app.jobs.resolve import JobResolver, ResolvedJob
from app.jobs.schemas import JobCreate
from app.mistral import repository
from app.mistral.errors import FineTunedModelNotFound, LabelsMissing
from app.mistral.repository import MistralJobWithRequest, RegisteredJobModel
from app.mistral.schemas import (
    DEFAULT_LEARNING_RATE,
    MistralFile,
    MistralHyperparameters,
    MistralJobCreate,
    MistralJobDetails,
    MistralJobView,
)
from app.mistral.targets import (
    JobTargets,
    check_validation_targets,
    select_classifier_targets,
    to_upload_fields,
)
from app.mistral.views import file_view, job_details_view, job_view
from app.queue.dispatch import WorkerNotifier
from app.queue.events import EventContent
from app.registry import refs
from app.settings import Settings
from app.storage.store import Store
from lora_core.errors.data import DataError
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import AutoSpec, LoraSpec
from lora_core.specs.train import MAX_EPOCHS, OptimSpec, RunOutputSpec

_MAX_SLUG = 64
_MAX_EVENTS = 100  # the newest, which a job is shown with
# In place of these the default base is trained, so that a script runs as it is.
_MISTRAL_MODELS = re.compile(
    r"(?:(?:open|labs|mistral)-)?(?:mistral|ministral|mixtral|codestral|pixtral|devstral|magistral)"
    r"[\w.-]*|ft:.*",
    re.DOTALL,
)


# -- Files ----------------------------------------------------------------------------------------


def create_file(
    database: Database, store: Store, *, settings: Settings, upload: Upload, call: IdempotentRequest
) -> MistralFile:
    """Store a file as a dataset with the targets that its lines have.

    Raises `LabelsMissing` and what `app.datasets.service.create_dataset` raises.
    """
    upload = files.ensure_extension(upload)
    tasks = detect_target_tasks(upload, settings)
    if not tasks:  # such as a file for a model that writes texts
        raise LabelsMissing(file=upload.filename, at="file")
    return files.create_file(
        database,
        store,
        settings=settings,
        upload=upload,
        fields=to_upload_fields(tasks, file=upload.filename),
        view_of=file_view,
        call=call,
    )


def get_mistral_file_dataset(session: Session, file_id: str, **detail: str) -> Dataset:
    """Return the dataset of an uploaded file. Raises `FileNotFound` with the `detail`."""
    return files.get_file_dataset(session, _parse_id(file_id), file_id=file_id, **detail)


def _parse_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# -- Jobs -----------------------------------------------------------------------------------------


def create_job(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    notifier: WorkerNotifier,
    body: MistralJobCreate,
    call: IdempotentRequest,
) -> MistralJobView:
    """Store a job whose model is registered when it succeeds, so that it can be called at once.

    With `auto_start: false` it is paused. Raises `FileNotFound`, `FilesNotUsable`,
    `FineTuningModelNotFound`, and what `select_classifier_targets`, `JobResolver.resolve` and
    `app.jobs.service.create_job` raise.
    """
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    base, events = resolve_base_or_default(
        body.model,
        owner="Mistral",
        owners_models=_MISTRAL_MODELS,
        database=database,
        store=store,
        settings=settings,
    )
    with database.read() as session:
        job_body, targets = _job_body(session, body, base)
        try:
            job_body, resolved, warnings = _resolve(
                JobResolver(session, settings), body, job_body, base
            )
        except (DataError, DatasetColumnsDiffer) as error:
            raise FilesNotUsable(problem=str(error), at="training_files") from error
    with database.write() as session:
        idempotency.reserve(session, call)
        job = jobs.create_job(
            session,
            body=job_body,
            resolved=resolved,
            settings=settings,
            notifier=notifier,
            call=replace(call, key=None),  # the response to store is the one below
        )
        row = repository.add_job_request_and_events(
            session,
            job.id,
            request=_stored_request(body, targets),
            events=[*events, *_warnings(body), *warnings, *targets.warnings],
        )
        if not body.starts:
            jobs.pause_job(session, job_id=job.id)
            session.refresh(row.job)
        view = job_view(row)
        idempotency.save_response(session, call, status=200, body=view)
    return view


def get_job(session: Session, job_id: str) -> MistralJobWithRequest:
    """Return a job by its id. Raises `FineTuningJobNotFound`."""
    parsed = _parse_id(job_id)
    row = None if parsed is None else repository.find_job(session, parsed)
    if row is None:
        raise FineTuningJobNotFound(job_id=repr(job_id[:64]))
    return row


def get_job_details(session: Session, row: MistralJobWithRequest) -> MistralJobDetails:
    """Return a job with its events and evaluations."""
    job_id = row.job.id
    events = list_newest_events(session, job_id, limit=_MAX_EVENTS)
    return job_details_view(row, events, list_loss_and_accuracy_points(session, [job_id])[job_id])


def get_fine_tuned_model(session: Session, model_id: str) -> RegisteredJobModel:
    """Return the model of a job by its `ft:…` name. Raises `FineTunedModelNotFound`."""
    job_id = refs.job_id_in_model_name(model_id)
    models = [] if job_id is None else repository.list_job_models(session, job_id)
    if not models:
        raise FineTunedModelNotFound(model=model_id[:100])
    return models[0]


def audit_model_update(session: Session, model: RegisteredJobModel, fields: Iterable[str]) -> None:
    """Write a line to the audit log after the commit."""
    audit = partial(
        logging.write_audit_line, "model_updated", model=model.refs[0], fields=sorted(fields)
    )
    call_after_commit(session, audit)


def _stored_request(body: MistralJobCreate, targets: JobTargets) -> dict[str, object]:
    """Return what the client asked for, without the keys of other services."""
    asked = body.model_dump(
        mode="json", exclude_none=True, exclude={"integrations", "repositories"}
    )
    return {**asked, "auto_start": body.starts, "classifier_targets": targets.described}


def _warnings(body: MistralJobCreate) -> list[EventContent]:
    events = []
    if body.integrations:
        message = "Metrics are not sent to Weights & Biases."
        events.append(EventContent("integration_ignored", "warning", message, {}))
    if body.hyperparameters.learning_rate != DEFAULT_LEARNING_RATE:
        factor = body.hyperparameters.learning_rate / DEFAULT_LEARNING_RATE
        message = f"The learning rates are {factor:.3g} times the default ones."
        events.append(EventContent("learning_rate_scaled", "info", message, {"factor": factor}))
    return events


# -- Data and settings ----------------------------------------------------------------------------


def _job_body(
    session: Session, body: MistralJobCreate, base: ResolvedBase
) -> tuple[JobCreate, JobTargets]:
    train = get_mistral_file_dataset(
        session, body.training_files[0].file_id, at="training_files.0.file_id"
    )
    targets = select_classifier_targets(train, body.classifier_targets)
    source: str | dict[Split, str] = str(train.id)
    if body.validation_files:
        at = "validation_files.0"
        validation = get_mistral_file_dataset(session, body.validation_files[0], at=at)
        check_validation_targets(validation, targets, at=at)
        source = {Split.TRAIN: str(train.id), Split.VALIDATION: str(validation.id)}
    asked = body.hyperparameters
    fields: dict[str, object] = {
        "name": body.suffix,
        "register_as": slugify(body.suffix or "", _MAX_SLUG) or train.name,
        "method": AutoSpec() if asked.is_automatic else LoraSpec(),
        "base": base.name,
        "data": DataSpec(source=source, max_length=asked.seq_len),
        "result": RunOutputSpec(train_metrics=True),  # the loss of training, in the checkpoint
    }
    if targets.task is not None:
        fields["task"] = targets.task
    return JobCreate.model_validate(fields), targets


def _resolve(
    resolver: JobResolver, body: MistralJobCreate, job_body: JobCreate, base: ResolvedBase
) -> tuple[JobCreate, ResolvedJob, list[EventContent]]:
    """Resolve the job, with the hyperparameters that were given, and warnings about these."""
    asked = body.hyperparameters
    warnings: list[EventContent] = []
    if not asked.is_automatic:
        optim, warnings = _optim(resolver, asked, job_body, base)
        job_body = job_body.model_copy(update={"optim": optim})
    return job_body, resolver.resolve(job_body.spec, base), warnings


def _optim(
    resolver: JobResolver, asked: MistralHyperparameters, job_body: JobCreate, base: ResolvedBase
) -> tuple[OptimSpec, list[EventContent]]:
    optim: dict[str, float] = {}
    warnings = []
    if asked.weight_decay is not None:
        optim["weight_decay"] = asked.weight_decay
    if asked.warmup_fraction is not None:
        optim["warmup"] = asked.warmup_fraction
    if asked.epochs is not None:
        optim["epochs"] = int(asked.epochs)
    if asked.training_steps is not None:
        epochs = resolver.epochs_of_updates(job_body.spec, base, asked.training_steps)
        optim["epochs"] = min(MAX_EPOCHS, epochs)
        if epochs > MAX_EPOCHS:
            message = (
                f"{asked.training_steps:,} training steps would be {epochs:,} epochs. The job "
                f"trains {MAX_EPOCHS:,}, the maximum."
            )
            warnings.append(build_warning_event("training_steps_limited", message))
    if asked.learning_rate != DEFAULT_LEARNING_RATE:
        factor = asked.learning_rate / DEFAULT_LEARNING_RATE
        rates = resolver.default_learning_rates(job_body.spec, base)
        optim |= {name: factor * rate for name, rate in rates.items()}
    return OptimSpec.model_validate(optim), warnings
