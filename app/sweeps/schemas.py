"""Request and response bodies of the sweep routes."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, Metadata, ResponseModel, Slug, Timestamp
from app.jobs.schemas import LocatedResource
from app.sweeps.search_space import MAX_TRIALS, Dimensions, SearchSpace
from app.sweeps.states import Objective, SweepState
from app.sweeps.strategies import GridSearch, Strategy
from lora_core.results import MetricName
from lora_core.specs.fields import FrozenModel, Int
from lora_core.specs.train import TrainSpec


class SweepCreate(FrozenModel):
    """A job description, and in `space` the fields to vary, such as `method.r`."""

    job: TrainSpec
    space: Dimensions
    strategy: Strategy = Field(
        default_factory=GridSearch, description="How trials are chosen. Default: all of them."
    )
    objective: Objective | None = Field(
        default=None,
        description="Validation metric that ranks the trials. Default: `accuracy`; of a "
        "multi-label task `macro_f1`, of a regression `rmse`, of several targets `skill`.",
    )
    name: Annotated[str, CleanText(200)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    max_parallel_jobs: Int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Maximum jobs at a time. Default: one per device of the workers.",
    )
    priority: Int = Field(default=0, ge=-100, le=100, description="Higher runs sooner.")

    @model_validator(mode="after")
    def _reject_job_trial(self) -> "SweepCreate":
        if self.job.trial is not None:
            raise PydanticCustomError("own_trials", "in a sweep, only the strategy sets `trial`")
        return self

    @property
    def search_space(self) -> SearchSpace:
        return SearchSpace(dimensions=self.space)


class SweepExtend(FrozenModel):
    """More trials for a sweep: values for its fields, or a higher number of drawn trials."""

    space: Dimensions | None = None
    trials: Int | None = Field(
        default=None, ge=1, le=MAX_TRIALS, description="New total number of trials."
    )


class SweepPromote(FrozenModel):
    """The trial to register as a version of a model."""

    model: Slug
    trial: Int | None = Field(default=None, ge=1, description="Trial number. Default: the winner.")
    alias: Slug | None = Field(
        default="production",
        description="Alias that is moved to the new version. Null: the version is only registered.",
    )


class RungPlan(ResponseModel):
    """A rung of the search: the budget of its trials, and how many run."""

    budget: float = Field(description="Share of all training steps, 0 to 1.")
    trials: int = Field(description="Trials of this rung.")


class SweepPlan(ResponseModel):
    """What starting the sweep would do."""

    trials: int = Field(description="Number of trials.")
    reused: int = Field(description="Trials whose results exist already and are reused.")
    rungs: list[RungPlan]
    workers: int = Field(description="Jobs that the current workers can run at a time.")
    estimated_seconds: int = Field(
        description="Estimated duration with these workers and no other jobs."
    )
    trainable_parameters: tuple[int, int] = Field(
        description="Trainable parameters of the smallest and of the largest trial."
    )


class TrialCounts(ResponseModel):
    """Number of trials in each state, each at its last rung."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class SplitScoreView(ResponseModel):
    """Results of a trial on one split."""

    metric: MetricName = Field(description="What models of this task are compared by.")
    value: float
    accuracy: float | None = Field(description="The value, if it is an accuracy.")
    low: float = Field(description="Lower bound of the 95% confidence interval of the value.")
    high: float = Field(description="Upper bound of that interval.")
    texts: int = Field(description="Number of texts in the split.")
    objective: float | None = Field(description="The objective of the sweep on this split.")


class WinnerComparisonView(ResponseModel):
    """The winner compared with the cheapest trial on the same texts."""

    difference: float = Field(description="Metric of the winner minus that of the cheapest.")
    low: float = Field(description="Lower bound of the 95% confidence interval of the difference.")
    high: float = Field(description="Upper bound of that interval.")
    significant: bool
    p: float | None = Field(
        description="p-value of the exact McNemar test of accuracies; null for other metrics."
    )
    texts: int = Field(description="Number of texts compared.")


class SelectedTrialView(ResponseModel):
    """The winner, or the cheapest trial within noise of it."""

    number: int
    settings: dict[str, Any]
    job_id: UUID | None
    trainable_parameters: int
    validation: SplitScoreView | None
    test: SplitScoreView | None


class SweepResultView(ResponseModel):
    """The winner on validation, and the trials within noise of it."""

    winner: SelectedTrialView
    cheapest: SelectedTrialView = Field(
        description="The trial with the fewest trainable parameters within noise of the winner."
    )
    within_noise: list[int] = Field(
        description="Numbers of the trials within noise of the winner, including the winner: "
        "by the exact McNemar test of accuracies, p >= 0.05, or by a paired bootstrap."
    )
    compared: int = Field(
        description="Trials that were evaluated on the same validation texts as the winner."
    )
    validation: WinnerComparisonView | None
    test: WinnerComparisonView | None


class SweepListItem(LocatedResource):
    """A sweep in a list."""

    prefix = "/v1/sweeps"

    name: str | None
    metadata: dict[str, str]
    state: SweepState
    strategy: dict[str, Any]
    objective: str
    max_parallel_jobs: int | None
    priority: int
    trial_count: int
    planned_trial_count: int = Field(
        description="Number of trials, with those that the strategy will propose later."
    )
    trial_counts: TrialCounts
    created_at: Timestamp
    finished_at: Timestamp | None


class SweepView(SweepListItem):
    """A sweep, its job description and its winner so far."""

    job: dict[str, Any]
    space: dict[str, Any]
    result: SweepResultView | None


class TrialView(ResponseModel):
    """A trial at its last rung."""

    number: int
    settings: dict[str, Any]
    state: str
    budget: float = Field(description="Share of all training steps that was run.")
    trainable_parameters: int
    seconds: float | None = Field(description="Total running time of its jobs.")
    metrics: dict[str, dict[str, float]] = Field(description="Metrics by split.")
    reused: bool = Field(description="The results existed before the sweep asked for them.")
    job_id: UUID | None
    error: str | None
