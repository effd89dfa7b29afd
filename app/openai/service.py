"""Create files and fine-tuning jobs of the OpenAI API as datasets and jobs of this service."""

import re
from dataclasses import replace

from sqlalchemy.orm import Session

from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.schemas import UploadFields
from app.datasets.service import create_dataset, slugify
from app.datasets.tables import Dataset
from app.datasets.upload import Upload
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import pretrained_bases
from app.jobs import service as jobs
from app.jobs.errors import (
    BaseDirectoriesDisabled,
    BaseDirectoryNotAllowed,
    ColumnsDiffer,
    InvalidBase,
)
from app.jobs.pretrained_bases import ResolvedBase
from app.jobs.resolve import JobResolver, ResolvedJob
from app.jobs.schemas import JobCreate
from app.openai import ids, repository
from app.openai.errors import (
    FileNotFound,
    FilesNotUsable,
    FineTuningJobNotFound,
    FineTuningModelNotFound,
    TooFewExamples,
)
from app.openai.repository import FineTuningRow
from app.openai.schemas import (
    MIN_EXAMPLES,
    FineTuningJob,
    FineTuningJobCreate,
    Hyperparameters,
    OpenAIFile,
)
from app.openai.views import dataset_file, fine_tuning_job
from app.queue.dispatch import WorkerNotifier
from app.queue.transitions import EventContent
from app.registry import service as registry
from app.registry.errors import ModelNotFound
from app.settings import Settings
from app.storage.store import Store
from lora_core.errors.base_model import BaseNotFound
from lora_core.errors.data import DataError
from lora_core.samples import minilm
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import AutoSpec, LinearSpec, LoraSpec, MethodSpec
from lora_core.specs.train import OptimSpec, ResultSpec, RuntimeSpec

_MAX_SLUG = 64
# In place of these the default base is trained, so that a script runs as it is.
_OPENAI_MODELS = re.compile(r"(?:gpt-|chatgpt-|o\d|ft:).*|(?:babbage|davinci)-002", re.DOTALL)


def create_file(
    database: Database, store: Store, *, settings: Settings, upload: Upload, call: IdempotentRequest
) -> OpenAIFile:
    """Store a file as a dataset. Raises what `app.datasets.service.create_dataset` raises."""
    if "." not in upload.filename:  # such as `upload`, as the SDK names bytes
        upload = replace(upload, filename=f"{upload.filename[:249]}.jsonl")  # the column has 255
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    dataset, _ = create_dataset(
        database,
        store,
        settings=settings,
        upload=upload,
        fields=UploadFields(),
        call=replace(call, key=None),  # the response to store is the one below
    )
    file = dataset_file(dataset)
    # A retry of a request that was lost before this transaction finds the same dataset.
    with database.write() as session:
        idempotency.reserve(session, call)
        idempotency.save_response(session, call, status=200, body=file)
    return file


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
        wanted = _own_model(session, body.model)
    base, events = _resolve_base(
        body.model, wanted, database=database, store=store, settings=settings
    )
    if body.integrations:
        events.append(_warning("integration_ignored", "Metrics are not sent to wandb."))
    with database.read() as session:
        job_body = _job_body(session, body, base)
        try:
            job_body, resolved = _resolve(JobResolver(session, settings), body, job_body, base)
        except (DataError, ColumnsDiffer) as error:
            raise FilesNotUsable(problem=str(error), at="training_file") from error
    with database.write() as session:
        idempotency.reserve(session, call)
        job = jobs.create_job(
            session,
            body=job_body,
            resolved=resolved,
            settings=settings,
            notifier=notifier,
            call=replace(call, key=None),  # as in `create_file`
        )
        request = body.model_dump(mode="json", exclude_none=True)
        tuning = repository.add_job(session, job.id, request=request, events=events)
        view = fine_tuning_job(tuning)
        idempotency.save_response(session, call, status=200, body=view)
    return view


def get_job(session: Session, job_id: str) -> FineTuningRow:
    """Return a job by its id in the OpenAI API. Raises `FineTuningJobNotFound`."""
    parsed = ids.parse_job_id(job_id)
    tuning = None if parsed is None else repository.find_job(session, parsed)
    if tuning is None:
        raise FineTuningJobNotFound(job_id=repr(job_id[:64]))
    return tuning


def get_file(session: Session, file_id: str, **detail: str) -> Dataset:
    """Return the dataset of an uploaded file. Raises `FileNotFound` with the `detail`."""
    parsed = ids.parse_file_id(file_id)
    try:
        dataset = None if parsed is None else datasets.get_dataset(session, parsed)
    except DatasetNotFound:
        dataset = None
    if dataset is None or dataset.label_column is None:
        raise FileNotFound(file_id=repr(file_id[:64]), **detail)
    return dataset


# -- Model ----------------------------------------------------------------------------------------


def _own_model(session: Session, model: str) -> str:
    """Return the version that an `ft:…` name of ours stands for; other names unchanged."""
    if ids.parse_model_name(model) is None:
        return model
    try:
        return registry.resolve(session, model).ref
    except ModelNotFound as error:
        raise FineTuningModelNotFound(model=model[:100], reason=str(error), at="model") from error


def _resolve_base(
    model: str, wanted: str, *, database: Database, store: Store, settings: Settings
) -> tuple[ResolvedBase, list[EventContent]]:
    """Return the base, and a warning if it is not the one that was asked for."""

    def resolve(name: str) -> ResolvedBase:
        return pretrained_bases.resolve_base(
            name, None, database=database, store=store, settings=settings
        )

    try:
        return resolve(wanted), []
    except (BaseNotFound, InvalidBase, BaseDirectoriesDisabled, BaseDirectoryNotAllowed) as error:
        if wanted != model:  # it exists, but is a linear model: there is nothing to train on
            message = f"{error} {minilm.NAME} is trained in its place."
        elif _OPENAI_MODELS.fullmatch(model):
            message = f"{model} is a model of OpenAI. {minilm.NAME} is trained in its place."
        else:
            reason = str(error)
            raise FineTuningModelNotFound(model=model[:100], reason=reason, at="model") from error
    return resolve(minilm.NAME), [_warning("model_replaced", message)]


def _warning(kind: str, message: str) -> EventContent:
    return EventContent(kind, "warning", message, {})


# -- Data and settings ----------------------------------------------------------------------------


def _job_body(session: Session, body: FineTuningJobCreate, base: ResolvedBase) -> JobCreate:
    train = get_file(session, body.training_file, at="training_file")
    if train.rows < MIN_EXAMPLES:
        raise TooFewExamples(count=train.rows, minimum=MIN_EXAMPLES, at="training_file")
    source: str | dict[Split, str] = str(train.id)
    if body.validation_file is not None:
        validation = get_file(session, body.validation_file, at="validation_file")
        source = {Split.TRAIN: str(train.id), Split.VALIDATION: str(validation.id)}
    return JobCreate(
        name=body.suffix,
        metadata=body.metadata or {},
        register_as=slugify(body.suffix or "", _MAX_SLUG) or train.name,
        method=_method(body),
        base=base.name,
        data=DataSpec(source=source),
        runtime=RuntimeSpec(seed=body.seed or 0),
        result=ResultSpec(train_metrics=True),  # the file of results has the training accuracy
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
