"""Request and response bodies of the job routes."""

from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, Metadata, RequestModel, ResponseModel, Slug, Timestamp
from app.jobs.summary import JobSummary, from_summary
from app.jobs.tags import Tags
from app.queue.states import JobState
from app.queue.tables import Job
from lora_core.specs.fields import Float
from lora_core.specs.train import TrainSpec
from lora_core.verdict import Verdict

Item = TypeVar("Item")
Notes = Annotated[str, CleanText(4000, min_length=0)]


class JobCreate(TrainSpec):
    """A training run. Only `method` has no default.

    `base` is `minilm-l6`, a model of this installation (`name`, `name@alias`, `name:3`), a hub
    model, or a directory that the operator allows. `data.source` is `rotten-tomatoes`, `imdb`,
    an uploaded dataset (`name`, `name:2`, or its id), `hub:NAME`, or one of these per split.
    """

    name: Annotated[str, CleanText(200)] | None = None
    tags: Tags = Field(default_factory=list, description="Short words to find the job by.")
    notes: Notes | None = None
    metadata: Metadata = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-100, le=100, description="Higher is sooner.")
    register_as: Slug | None = Field(
        default=None, description="Register the result as a version of this model."
    )
    time_limit_seconds: Float | None = Field(
        default=None,
        gt=0,
        description="Limit on the time on a device, all attempts together; then the job fails.",
    )

    @model_validator(mode="after")
    def _leaves_a_model(self) -> "JobCreate":
        if self.register_as is not None and (self.trial or not self.result.model):
            raise PydanticCustomError(
                "no_model", "a run that stores no model cannot have `register_as`"
            )
        return self

    @property
    def spec(self) -> TrainSpec:
        """The training spec alone."""
        return TrainSpec(**{field: getattr(self, field) for field in TrainSpec.model_fields})


class JobUpdate(RequestModel):
    """Fields of a job that can be changed in any state. Omitted fields stay unchanged."""

    tags: Tags | None = Field(
        default=None, description="Replaces all tags; null or `[]` removes them."
    )
    notes: Notes | None = Field(default=None, description="Null or empty removes them.")


class ParameterCountsView(ResponseModel):
    """Parameter counts; `exact` is false while the number of labels is estimated."""

    trainable: int
    total: int
    exact: bool


class JobPlan(ResponseModel):
    """The plan of a job that was not created (`dry_run`)."""

    parameters: ParameterCountsView
    estimated_seconds: int = Field(
        description="From the start of the job, without its time in the queue."
    )
    queue_position: int = Field(description="1: next in line.")
    spec: dict[str, Any] = Field(description="The complete spec, with all defaults.")


class ErrorListItem(ResponseModel):
    """Why a job failed."""

    code: str
    message: str


class JobError(ErrorListItem):
    """Why a job failed, with details."""

    detail: dict[str, Any] | None


class JobWait(ResponseModel):
    """The unavailable resource a queued job waits for: disk, storage, database or hub."""

    code: str
    message: str
    since: Timestamp


class QueuedResource(ResponseModel):
    """A queued resource with a URL."""

    prefix: ClassVar[str]

    id: UUID

    @property
    def location(self) -> str:
        return f"{self.prefix}/{self.id}"


class JobListItem(QueuedResource):
    """A job in a list."""

    prefix = "/v1/jobs"

    name: str | None
    tags: list[str]
    metadata: dict[str, str]
    state: JobState
    method: str
    base: str | None = Field(description="Null for the method `linear`, which has none.")
    register_as: str | None
    promote_to: str | None = Field(description="The alias that moves to the registered version.")
    sweep_id: UUID | None = Field(description="The sweep that created the job.")
    continues: UUID | None = Field(
        description="The job it continues, from its last checkpoint if it had one."
    )
    priority: int
    spec: dict[str, Any]
    time_limit_seconds: float | None
    attempt: int
    failures_counted: int = Field(description="Consecutive failures without progress.")
    resume_exact: bool = Field(
        description="False: after a resume, the numbers differ from those of an unbroken run."
    )
    step: int
    total_steps: int | None
    progress: float | None
    queue_position: int | None
    waiting: JobWait | None
    parameters: ParameterCountsView
    estimated_seconds: int
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None
    accuracy: float | None = Field(
        description="On the test split, or else on the validation split."
    )
    error: ErrorListItem | None
    artifact_id: UUID | None
    model_version: str | None

    @classmethod
    def from_listed_job(cls, job: Job, queue_position: int | None, summary: JobSummary) -> Self:
        """`queue_position` is not in the row: it depends on the other jobs."""
        return cls(**_fields(job, queue_position, summary), error=error_list_item(job))


class JobView(JobListItem):
    """A job."""

    notes: str | None
    summary: dict[str, Any] | None
    verdict: Verdict | None = Field(description="An assessment of the model. Null: there is none.")
    error: JobError | None

    @classmethod
    def from_job(cls, job: Job, queue_position: int | None) -> "JobView":
        """Build the view. `queue_position` is not in the row: it depends on the other jobs."""
        fields = _fields(job, queue_position, from_summary(job.summary))
        return cls(
            **fields,
            notes=job.notes,
            summary=job.summary,
            verdict=(job.summary or {}).get("verdict"),
            error=job_error(job),
        )


def _fields(job: Job, queue_position: int | None, summary: JobSummary) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in _COPIED_COLUMNS},
        "tags": job.tags or [],
        "metadata": job.labels,
        "base": job.base or None,
        "progress": progress(job),
        "queue_position": queue_position,
        "waiting": job_wait(job),
        "parameters": _parameter_counts(job, summary),
        "estimated_seconds": job.plan["estimated_seconds"],
        "accuracy": summary.accuracy,
        "model_version": summary.model_version,
    }


_COPIED_COLUMNS = frozenset(JobListItem.model_fields) & frozenset(Job.__mapper__.columns.keys())


class EventView(ResponseModel):
    """Something that happened to a job."""

    seq: int
    attempt: int
    kind: str
    level: str
    message: str
    data: dict[str, Any]
    at: Timestamp


class PointView(ResponseModel):
    """One value of a metric at one step. `value` is null where it is not finite."""

    seq: int
    attempt: int
    split: str
    name: str
    step: int
    epoch: float | None
    value: float | None
    nonfinite: bool
    at: Timestamp


class StateView(ResponseModel):
    """The current state of a job; a stream sends it whenever it changes."""

    state: JobState
    attempt: int
    step: int
    total_steps: int | None
    progress: float | None
    queue_position: int | None
    cancel_requested_at: Timestamp | None

    @classmethod
    def from_job(cls, job: Job, queue_position: int | None) -> "StateView":
        return cls(
            state=JobState(job.state),
            attempt=job.attempt,
            step=job.step,
            total_steps=job.total_steps,
            progress=progress(job),
            queue_position=queue_position,
            cancel_requested_at=job.cancel_requested_at,
        )


class SequencePage(ResponseModel, Generic[Item]):
    """Items by `seq`. If there are more, `next` is the `after` of the next call."""

    data: list[Item]
    next: int | None = None


def progress(job: Job) -> float | None:
    """Return the share of the steps that are done; a run that stopped early is at 1."""
    if job.state == JobState.SUCCEEDED:
        return 1.0
    return job.step / job.total_steps if job.total_steps else None


def _parameter_counts(job: Job, summary: JobSummary) -> ParameterCountsView:
    """Return the counts of the run once it has ended, and those of the plan until then."""
    trainable, total = summary.trainable_parameters, summary.total_parameters
    if trainable is not None and total is not None:
        return ParameterCountsView(trainable=trainable, total=total, exact=True)
    return ParameterCountsView.model_validate(job.plan["parameters"])


def job_wait(job: Job) -> JobWait | None:
    """Return what a queued job waits for, other than its turn."""
    if job.state != JobState.QUEUED or job.waiting_code is None or job.waiting_since is None:
        return None
    return JobWait(
        code=job.waiting_code, message=job.waiting_message or "", since=job.waiting_since
    )


def error_list_item(job: Job) -> ErrorListItem | None:
    """Return why a job failed, without details."""
    if job.error_code is None:
        return None
    return ErrorListItem(code=job.error_code, message=job.error_message or "")


def job_error(job: Job) -> JobError | None:
    """Return why a job failed, with details."""
    if job.error_code is None:
        return None
    return JobError(code=job.error_code, message=job.error_message or "", detail=job.error_detail)
