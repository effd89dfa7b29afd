"""Request and response bodies of the job routes."""

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, Metadata, RequestModel, ResponseModel, Slug, Timestamp
from app.jobs.tags import Tags
from app.queue.enums import JobState
from lora_core.results import MetricName, Verdict
from lora_core.specs.fields import Float
from lora_core.specs.train import TrainSpec

Item = TypeVar("Item")
Notes = Annotated[str, CleanText(4000, min_length=0)]
UnpairedReason = Literal["other_texts", "first_has_none"]


class JobCreate(TrainSpec):
    """A training run. All fields have defaults.

    `base` is `minilm-l6`, a model of this installation (`name`, `name@alias`, `name:3`), a hub
    model, or a directory that the operator allows. `data.source` is `rotten-tomatoes`, `imdb`,
    an uploaded dataset (`name`, `name:2`, or its id), `hub:NAME`, `hub:NAME:CONFIG`, or one of
    these per split. The default of `task` is the one that the dataset was uploaded for.
    """

    name: Annotated[str, CleanText(200)] | None = None
    tags: Tags = Field(default_factory=list, description="Short words to find the job by.")
    notes: Notes | None = None
    metadata: Metadata = Field(default_factory=dict)
    priority: int = Field(
        default=0, ge=-100, le=100, description="Jobs with a higher priority run first."
    )
    register_as: Slug | None = Field(
        default=None, description="Register the result as a version of this model."
    )
    time_limit_seconds: Float | None = Field(
        default=None,
        gt=0,
        description="Maximum total running time of all attempts; a job that exceeds it fails.",
    )

    @model_validator(mode="after")
    def _register_as_needs_model(self) -> "JobCreate":
        if self.register_as is not None and (self.trial or not self.result.model):
            raise PydanticCustomError(
                "no_model", "`register_as` requires a run that stores a model"
            )
        return self

    @property
    def spec(self) -> TrainSpec:
        """The training spec alone."""
        # A task that is left out is that of the dataset (`data_sources.task_of_upload`).
        left_out = {"task"} - self.model_fields_set
        fields = TrainSpec.model_fields.keys() - left_out
        return TrainSpec(**{field: getattr(self, field) for field in fields})


class JobUpdate(RequestModel):
    """Fields of a job that can be changed in any state. Omitted fields stay unchanged."""

    tags: Tags | None = Field(
        default=None, description="Replaces all tags; null or `[]` removes them."
    )
    notes: Notes | None = Field(default=None, description="Null or empty removes them.")


class ParameterCountsView(ResponseModel):
    """Parameter counts.

    `exact` is false while the number of labels is estimated, and for bases on the general road.
    """

    trainable: int
    total: int
    exact: bool


class CrossValidationPlan(ResponseModel):
    """What the method `auto` compares before it trains the best candidate."""

    candidates: int
    fits: int = Field(description="Models that are fitted on a part of the texts.")


class JobPlan(ResponseModel):
    """The plan of a job that was not created (`dry_run`)."""

    parameters: ParameterCountsView
    estimated_seconds: int = Field(
        description="From the start of the job, without its time in the queue. With `auto`, if the "
        "slowest candidate is chosen."
    )
    cross_validation: CrossValidationPlan | None = Field(description="Null: not the method `auto`.")
    queue_position: int = Field(description="1: next in line.")
    spec: dict[str, Any] = Field(
        description="The spec that the job would have. A field that is null or `auto` is resolved "
        "when the job runs."
    )


class JobErrorSummaryView(ResponseModel):
    """Why a job failed."""

    code: str
    message: str


class JobErrorView(JobErrorSummaryView):
    """Why a job failed, with details."""

    detail: dict[str, Any] | None


class JobWaitReason(ResponseModel):
    """What a queued job waits for: an unavailable disk, storage, database or hub, or its resume."""

    code: str
    message: str
    since: Timestamp


class LocatedResource(ResponseModel):
    """A job, prediction run or sweep, with its URL."""

    prefix: ClassVar[str]

    id: UUID

    @property
    def location(self) -> str:
        return f"{self.prefix}/{self.id}"


class JobMainMetricView(ResponseModel):
    """The metric that a job is compared by.

    It is the accuracy, macro F1 of several labels, RMSE, or mean skill of several targets.
    """

    name: MetricName
    value: float


class JobListItem(LocatedResource):
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
        description="False: after a resume, the numbers differ from those of an uninterrupted run."
    )
    step: int
    total_steps: int | None
    progress: float | None
    paused: bool = Field(description="No worker claims the job until it is resumed.")
    queue_position: int | None
    waiting: JobWaitReason | None
    parameters: ParameterCountsView
    estimated_seconds: int
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None
    pause_requested_at: Timestamp | None = Field(
        description="A running job with it stops at its next step, and is then paused."
    )
    accuracy: float | None = Field(
        description="On the test split, or else on the validation split. Of a multi-label task, "
        "the share of texts with exactly the right labels; null for a regression."
    )
    metric: JobMainMetricView | None = Field(
        description="On the test split, or else on validation."
    )
    learned: bool | None = Field(
        description="False: its predictions agree with the labels no better than chance. Null: "
        "there is no verdict."
    )
    error: JobErrorSummaryView | None
    artifact_id: UUID | None
    model_version: str | None


class JobView(JobListItem):
    """A job."""

    notes: str | None
    summary: dict[str, Any] | None
    verdict: Verdict | None = Field(description="An assessment of the model. Null: there is none.")
    error: JobErrorView | None


class JobEventView(ResponseModel):
    """Something that happened to a job."""

    seq: int
    attempt: int
    kind: str
    level: str
    message: str
    data: dict[str, Any]
    at: Timestamp


class MetricPointView(ResponseModel):
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


class JobStateView(ResponseModel):
    """The current state of a job; a stream sends it whenever it changes."""

    state: JobState
    attempt: int
    step: int
    total_steps: int | None
    progress: float | None
    paused: bool
    queue_position: int | None
    cancel_requested_at: Timestamp | None
    pause_requested_at: Timestamp | None


class Curve(ResponseModel):
    """One metric of one split by step.

    A curve with more points than requested is downsampled into bins of equally many steps: `values`
    are their means, `low` and `high` their extremes, so that no peak is lost.
    """

    split: str
    name: str
    points: int = Field(description="Number of points before downsampling.")
    steps: list[int] = Field(description="Of a bin, the last step.")
    values: list[float | None] = Field(description="Null where a value is not finite.")
    low: list[float | None] | None = Field(description="Null: the curve was not downsampled.")
    high: list[float | None] | None


class Curves(ResponseModel):
    """The curves of a job. Its stream after `seq` continues from here."""

    seq: int
    data: list[Curve]


class SequencePage(ResponseModel, Generic[Item]):
    """Items by `seq`. If there are more, `next` is the `after` of the next call."""

    data: list[Item]
    next: int | None = None


class PairedComparisonView(ResponseModel):
    """A job compared with the first one, on the texts that both predicted."""

    difference: float = Field(description="Metric of this job minus that of the first.")
    low: float = Field(description="Lower end of its 95% interval.")
    high: float
    significant: bool = Field(
        description="Whether the difference is unlikely to be chance. Accuracies: p < 0.05; other "
        "metrics: 0 is not in the interval, by a paired bootstrap over texts."
    )
    p: float | None = Field(
        description="P value of the exact McNemar test of accuracies; null for other metrics."
    )
    only_this: int | None = Field(
        description="Texts that only this job classified correctly; null for other metrics."
    )
    only_first: int | None


class SplitResultView(ResponseModel):
    """The result of a job on one split."""

    metric: MetricName = Field(description="What jobs of this task are compared by.")
    value: float
    accuracy: float | None = Field(description="The value, if it is an accuracy.")
    low: float = Field(
        description="Lower end of the 95% interval of the value: Wilson's for an accuracy, else "
        "by the bootstrap."
    )
    high: float
    texts: int
    against_first: PairedComparisonView | None
    unpaired: UnpairedReason | None = Field(
        description="Why a job other than the first is not compared with it. `other_texts`: the "
        "texts, their order, their labels or the metric differ."
    )


class ComparedJob(ResponseModel):
    """One of the compared jobs; a split without stored predictions is null."""

    job: JobView
    validation: SplitResultView | None
    test: SplitResultView | None


class JobComparison(ResponseModel):
    """Jobs in the requested order."""

    jobs: list[ComparedJob]
    settings: dict[str, list[Any]] = Field(
        description="Settings that differ, such as `method.r`, with the value of each job; null: "
        "the job does not have it."
    )


class MisclassifiedText(ResponseModel):
    """One misclassified text."""

    row: int = Field(description="Row in its file; 1 is the first row of data.")
    text: str | None = Field(
        description="The beginning of the text; null: the job stored no texts."
    )
    text_pair: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Of a pair, the beginning of the second text.",
    )
    cut: bool = Field(description="Whether the text was truncated.")
    target: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Which of several targets is wrong. The labels are those of this target.",
    )
    label: str = Field(description="The true label; of several a JSON list; or a number.")
    predicted: str
    score: float | None = Field(
        description="Calibrated probability of `predicted`; of several labels, of the wrong answer "
        "to the label that the model is most wrong about. Null: a regression."
    )
    true_score: float | None = Field(
        description="Probability of `label`, or of the right answer to that label."
    )
