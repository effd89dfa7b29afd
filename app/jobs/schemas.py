"""Bodies of the job routes: the run that a job makes, and what the service adds to it."""

from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import Body, Metadata, Slug, Text, Timestamp, View
from app.jobs import figures
from app.jobs.figures import Figures
from app.jobs.tags import Tags
from app.queue.states import JobState
from app.queue.tables import Job
from lora_core.specs.frozen import Float
from lora_core.specs.train import TrainSpec
from lora_core.verdict import Verdict

Item = TypeVar("Item")
Notes = Annotated[str, Text(4000, min_length=0)]


class JobCreate(TrainSpec):
    """A training run. Only `method` has no default.

    `base` is `minilm-l6`, a model of this installation (`name`, `name@alias`, `name:3`), a hub
    model, or a directory that the operator has opened. `data.source` is `rotten-tomatoes`, `imdb`,
    an uploaded data set (`name`, `name:2`, or its id), `hub:NAME`, or one of these per part.
    """

    name: Annotated[str, Text(200)] | None = None
    tags: Tags = Field(default_factory=list, description="Short words to find it by.")
    notes: Notes | None = None
    metadata: Metadata = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-100, le=100, description="Higher is sooner.")
    register_as: Slug | None = Field(
        default=None, description="Make the result a version of this model."
    )
    time_limit_seconds: Float | None = Field(
        default=None,
        gt=0,
        description="Longest time on a device, all attempts together; then the job fails.",
    )

    @model_validator(mode="after")
    def _something_to_register(self) -> "JobCreate":
        if self.register_as is not None and (self.trial or not self.result.model):
            raise PydanticCustomError(
                "no_model", "a run that leaves no model cannot have `register_as`"
            )
        return self

    @property
    def spec(self) -> TrainSpec:
        """The run alone."""
        return TrainSpec(**{field: getattr(self, field) for field in TrainSpec.model_fields})


class JobUpdate(Body):
    """What can be changed about a job in any state. What is left out stays as it is."""

    tags: Tags | None = Field(
        default=None, description="Replace the tags that it has; null or `[]`: none."
    )
    notes: Notes | None = Field(default=None, description="Null or empty: none.")


class Parameters(View):
    """How many parameters there are; `exact` is false while the number of labels is a guess."""

    trainable: int
    total: int
    exact: bool


class Plan(View):
    """What would happen."""

    parameters: Parameters
    estimated_seconds: int = Field(description="From the start of the job, without its wait.")
    queue_position: int = Field(description="1: next.")
    spec: dict[str, Any] = Field(description="The run in full, all defaults filled in.")


class ErrorListItem(View):
    """Why a job failed."""

    code: str
    message: str


class JobError(ErrorListItem):
    """Why a job failed, with all that is known of it."""

    detail: dict[str, Any] | None


class JobWait(View):
    """What a queued job waits for: disk, storage, database or hub that fail."""

    code: str
    message: str
    since: Timestamp


class Queued(View):
    """What was put into the queue and can be asked for at its address."""

    prefix: ClassVar[str]

    id: UUID

    @property
    def location(self) -> str:
        return f"{self.prefix}/{self.id}"


class JobListItem(Queued):
    """A job, as lists show it."""

    prefix = "/v1/jobs"

    name: str | None
    tags: list[str]
    metadata: dict[str, str]
    state: JobState
    method: str
    base: str | None = Field(description="Null: the method `linear` has none.")
    register_as: str | None
    promote_to: str | None = Field(description="The alias that moves to what it registers.")
    sweep_id: UUID | None = Field(description="The sweep that it was made for.")
    continues: UUID | None = Field(
        description="The job that it continues, from its last checkpoint if it had one."
    )
    priority: int
    spec: dict[str, Any]
    time_limit_seconds: float | None
    attempt: int
    failures_counted: int = Field(description="In a row without progress.")
    resume_exact: bool = Field(
        description="False: it went on where other numbers come out than in an unbroken run."
    )
    step: int
    total_steps: int | None
    progress: float | None
    queue_position: int | None
    waiting: JobWait | None
    parameters: Parameters
    estimated_seconds: int
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None
    accuracy: float | None = Field(description="On test, or while there is none on validation.")
    error: ErrorListItem | None
    artifact_id: UUID | None
    model_version: str | None

    @classmethod
    def listed(cls, job: Job, queue_position: int | None, figures: Figures) -> Self:
        """`queue_position` is not in the row: it depends on the other jobs."""
        return cls(**_fields(job, queue_position, figures), error=why_listed(job))


class JobView(JobListItem):
    """A job."""

    notes: str | None
    summary: dict[str, Any] | None
    verdict: Verdict | None = Field(description="What its model is worth. Null: it has none.")
    error: JobError | None

    @classmethod
    def of(cls, job: Job, queue_position: int | None) -> "JobView":
        """`queue_position` is not in the row: it depends on the other jobs."""
        fields = _fields(job, queue_position, figures.of(job.summary))
        return cls(
            **fields,
            notes=job.notes,
            summary=job.summary,
            verdict=(job.summary or {}).get("verdict"),
            error=why_failed(job),
        )


def _fields(job: Job, queue_position: int | None, figures: Figures) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in _SAME},
        "tags": job.tags or [],
        "metadata": job.labels,
        "base": job.base or None,
        "progress": progress(job),
        "queue_position": queue_position,
        "waiting": waiting_for(job),
        "parameters": _parameters(job, figures),
        "estimated_seconds": job.plan["estimated_seconds"],
        "accuracy": figures.accuracy,
        "model_version": figures.model_version,
    }


_SAME = frozenset(JobListItem.model_fields) & frozenset(Job.__mapper__.columns.keys())


class EventView(View):
    """Something that happened to a job."""

    seq: int
    attempt: int
    kind: str
    level: str
    message: str
    data: dict[str, Any]
    at: Timestamp


class PointView(View):
    """One figure at one step. `value` is null where it is not finite."""

    seq: int
    attempt: int
    split: str
    name: str
    step: int
    epoch: float | None
    value: float | None
    nonfinite: bool
    at: Timestamp


class StateView(View):
    """Where a job is now; sent on a stream whenever it changes."""

    state: JobState
    attempt: int
    step: int
    total_steps: int | None
    progress: float | None
    queue_position: int | None
    cancel_requested_at: Timestamp | None

    @classmethod
    def of(cls, job: Job, queue_position: int | None) -> "StateView":
        return cls(
            state=JobState(job.state),
            attempt=job.attempt,
            step=job.step,
            total_steps=job.total_steps,
            progress=progress(job),
            queue_position=queue_position,
            cancel_requested_at=job.cancel_requested_at,
        )


class Log(View, Generic[Item]):
    """Items by `seq`; `next`, if there is more, is the `after` of the next call."""

    data: list[Item]
    next: int | None = None


def progress(job: Job) -> float | None:
    """Share of the steps that are done; a run that stopped early is done as well."""
    if job.state == JobState.SUCCEEDED:
        return 1.0
    return job.step / job.total_steps if job.total_steps else None


def _parameters(job: Job, figures: Figures) -> Parameters:
    """As counted by the run, once it has ended; until then as planned."""
    trainable, total = figures.trainable_parameters, figures.total_parameters
    if trainable is not None and total is not None:
        return Parameters(trainable=trainable, total=total, exact=True)
    return Parameters.model_validate(job.plan["parameters"])


def waiting_for(job: Job) -> JobWait | None:
    """What a queued job waits for, other than its turn."""
    if job.state != JobState.QUEUED or job.waiting_code is None or job.waiting_since is None:
        return None
    return JobWait(
        code=job.waiting_code, message=job.waiting_message or "", since=job.waiting_since
    )


def why_listed(job: Job) -> ErrorListItem | None:
    """The cause in short, of a job that failed."""
    if job.error_code is None:
        return None
    return ErrorListItem(code=job.error_code, message=job.error_message or "")


def why_failed(job: Job) -> JobError | None:
    """The cause, of a job that failed."""
    if job.error_code is None:
        return None
    return JobError(code=job.error_code, message=job.error_message or "", detail=job.error_detail)
