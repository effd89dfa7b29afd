"""Create files and fine-tuning jobs of the OpenAI API as datasets and jobs of this service."""

import re
from dataclasses import replace

from sqlalchemy.orm import Session

from app.database.engines import Database
from app.datasets.multipart_upload import Upload
from app.datasets.schemas import UploadFields
from app.datasets.service import slugify
from app.datasets.tables import Dataset
from app.fine_tuning_apis import files
from app.fine_tuning_apis.base_model import resolve_base_or_default
from app.fine_tuning_apis.errors import FilesNotUsable, FineTuningJobNotFound
from app.fine_tuning_apis.events import build_warning_event
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import service as jobs
from app.jobs.errors import DatasetColumnsDiffer
from app.jobs.pretrained_bases import ResolvedBase
from app.jobs.resolve import JobResolver, ResolvedJob
from app.jobs.schemas import JobCreate
from app.openai import ids, repository
from app.openai.errors import TooFewExamples
from app.openai.repository import OpenAIJobWithRequest
from app.openai.schemas import (
    MIN_EXAMPLES,
    FineTuningJob,
    FineTuningJobCreate,
    Hyperparameters,
    OpenAIFile,
)
from app.openai.views import dataset_file_view, fine_tuning_job_view
from app.queue.dispatch import WorkerNotifier
from app.settings import Settings
from app.storage.store import Store
from lora_core.errors.data import DataError
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import AutoSpec, LinearSpec, LoraSpec, MethodSpec
from lora_core.specs.train import OptimSpec, RunOutputSpec, RuntimeSpec

_MAX_SLUG = 64
# In place of these the default base is trained, so that a script runs as it is.
_OPENAI_MODELS = re.compile(r"(?:gpt-|chatgpt-|o\d|ft:).*|(?:babbage|davinci)-002", re.DOTALL)


def create_file(
    database: Database, store: Store, *, settings: Settings, upload: Upload, call: IdempotentRequest
) -> OpenAIFile:
    """Store a file as a dataset. Raises what `app.datasets.service.create_dataset` raises."""
    return files.create_file(
        database,
        store,
        settings=settings,
        upload=files.ensure_extension(upload),
        fields=UploadFields(),
        view_of=dataset_file_view,
        call=call,
    )


def create_job(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    notifier: WorkerNotifier,
    body: FineTuningJobCreate,
    call: IdempotentRequest,
) -> FineTuningJob:
    """Store a job whose model is registered when it succeeds, so that it can be called at once.

    Raises `FileNotFound`, `TooFewExamples`, `FilesNotUsable`, `FineTuningModelNotFound`, and what
    `JobResolver.resolve` and `app.jobs.service.create_job` raise.
    """
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    base, events = resolve_base_or_default(
        body.model,
        owner="OpenAI",
        owners_models=_OPENAI_MODELS,
        database=database,
        store=store,
        settings=settings,
    )
    if isinstance(_method(body), LinearSpec):
        message = f"The method linear trains no base model, so {body.model} is not used."
        events = [build_warning_event("model_ignored", message)]
    if body.integrations:
        events.append(build_warning_event("integration_ignored", "Metrics are not sent to wandb."))
    with database.read() as session:
        job_body = _job_body(session, body, base)
        try:
            job_body, resolved = _resolve(JobResolver(session, settings), body, job_body, base)
        except (DataError, DatasetColumnsDiffer) as error:
            raise FilesNotUsable(problem=str(error), at="training_file") from error
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
        request = body.model_dump(mode="json", exclude_none=True)
        tuning = repository.add_job_request_and_events(
            session, job.id, request=request, events=events
        )
        view = fine_tuning_job_view(tuning)
        idempotency.save_response(session, call, status=200, body=view)
    return view


def get_job(session: Session, job_id: str) -> OpenAIJobWithRequest:
    """Return a job by its id in the OpenAI API. Raises `FineTuningJobNotFound`."""
    parsed = ids.parse_job_id(job_id)
    tuning = None if parsed is None else repository.find_job(session, parsed)
    if tuning is None:
        raise FineTuningJobNotFound(job_id=repr(job_id[:64]))
    return tuning


def get_openai_file_dataset(session: Session, file_id: str, **detail: str) -> Dataset:
    """Return the dataset of an uploaded file. Raises `FileNotFound` with the `detail`."""
    return files.get_file_dataset(session, ids.parse_file_id(file_id), file_id=file_id, **detail)


# -- Data and settings ----------------------------------------------------------------------------


def _job_body(session: Session, body: FineTuningJobCreate, base: ResolvedBase) -> JobCreate:
    train = get_openai_file_dataset(session, body.training_file, at="training_file")
    if train.rows < MIN_EXAMPLES:
        raise TooFewExamples(count=train.rows, minimum=MIN_EXAMPLES, at="training_file")
    source: str | dict[Split, str] = str(train.id)
    if body.validation_file is not None:
        validation = get_openai_file_dataset(session, body.validation_file, at="validation_file")
        source = {Split.TRAIN: str(train.id), Split.VALIDATION: str(validation.id)}
    return JobCreate(
        name=body.suffix,
        metadata=body.metadata or {},
        register_as=slugify(body.suffix or "", _MAX_SLUG) or train.name,
        method=_method(body),
        base=base.name,
        data=DataSpec(source=source),
        runtime=RuntimeSpec(seed=body.seed or 0),
        result=RunOutputSpec(train_metrics=True),  # the file of results has the training accuracy
    )


def _method(body: FineTuningJobCreate) -> MethodSpec:
    method = body.method.spec if body.method is not None else None
    if method is not None:
        return method
    return AutoSpec() if _hyperparameters(body).is_automatic else LoraSpec()


def _hyperparameters(body: FineTuningJobCreate) -> Hyperparameters:
    if body.hyperparameters is not None and not body.hyperparameters.is_automatic:
        return body.hyperparameters
    supervised = body.method.supervised if body.method is not None else None
    return supervised.hyperparameters if supervised is not None else Hyperparameters()


def _resolve(
    resolver: JobResolver, body: FineTuningJobCreate, job_body: JobCreate, base: ResolvedBase
) -> tuple[JobCreate, ResolvedJob]:
    """Resolve the job, with the hyperparameters that are numbers."""
    if isinstance(job_body.method, LinearSpec):
        return job_body, resolver.resolve(job_body.spec, None)
    asked = _hyperparameters(body)
    optim: dict[str, float] = {}
    if asked.n_epochs != "auto":
        optim["epochs"] = asked.n_epochs
    if asked.batch_size != "auto":
        optim["batch_size"] = asked.batch_size
    if asked.learning_rate_multiplier != "auto":
        rates = resolver.default_learning_rates(job_body.spec, base)
        optim |= {name: asked.learning_rate_multiplier * rate for name, rate in rates.items()}
    job_body = job_body.model_copy(update={"optim": OptimSpec.model_validate(optim)})
    return job_body, resolver.resolve(job_body.spec, base)
