"""Request and response bodies of retraining."""

from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import RequestModel, ResponseModel, Timestamp
from app.retraining.states import NotPromotedReason, RetrainingState, Trigger
from app.sweeps.search_space import Dimensions
from app.sweeps.strategies import GridSearch, Strategy
from lora_core.results import MetricName

MAX_LABELS = 1_000_000
MAX_DAYS = 366.0
DEFAULT_LEVEL = 0.05
MAX_LEVEL = 0.5


class HyperparameterSearch(RequestModel):
    """A sweep over settings, such as `method.r`, around those of production's job."""

    space: Dimensions
    strategy: Strategy = Field(
        default_factory=GridSearch, description="How trials are chosen. Default: all of them."
    )


class RetrainingRuleUpdate(RequestModel):
    """When a model is trained again. Whatever comes first starts a run."""

    enabled: StrictBool = Field(
        default=True, description="False: only a request starts a run, and nothing is due."
    )
    new_labels: Annotated[int, Field(ge=1, le=MAX_LABELS, strict=True)] | None = Field(
        default=None, description="Texts with new feedback, since the previous run."
    )
    every_days: Annotated[float, Field(ge=0.01, le=MAX_DAYS)] | None = Field(
        default=None, description="Days since the previous run, if there is any new feedback."
    )
    level: Annotated[float, Field(gt=0, le=MAX_LEVEL)] = Field(
        default=DEFAULT_LEVEL,
        description="Share of runs without any gain that may be promoted. It holds for each run.",
    )
    search: HyperparameterSearch | None = Field(
        default=None,
        description="Null: the new version has the settings of production's job. A search tries "
        "others first, and makes the version of the best trial by validation.",
    )

    @model_validator(mode="after")
    def _has_trigger(self) -> Self:
        if self.enabled and self.new_labels is None and self.every_days is None:
            raise PydanticCustomError(
                "trigger", "needs new_labels or every_days, or enabled: false"
            )
        return self


class RetrainingRuleView(ResponseModel):
    """The rule of a model, and how far the next run is."""

    model: str
    enabled: bool
    new_labels: int | None
    every_days: float | None
    level: float
    search: HyperparameterSearch | None
    waiting_labels: int = Field(
        description="Texts whose feedback is newer than the previous run, or all if there is none."
    )
    due_at: Timestamp | None = Field(
        description="When `every_days` is over. A run also needs new feedback."
    )
    tries: int = Field(description="Versions that the test has compared with production so far.")
    created_at: Timestamp
    updated_at: Timestamp


# -- Runs -----------------------------------------------------------------------------------------


class TextExclusionReason(StrEnum):
    """Why a live text is used neither for training nor for evaluation."""

    DISAGREEMENT = "disagreement"  # of its authors
    INCOMPLETE = "incomplete"  # some targets have no feedback
    OTHER_TASK = "other_task"  # it has only feedback on versions with another task
    IN_EVALUATION_SPLIT = "in_evaluation_split"  # it is a validation or test text of the data
    FORGOTTEN = "forgotten"


class TextCounts(ResponseModel):
    """How many texts of which origin a run trains on, and how many it evaluates on."""

    source: str = Field(description="The data of the version in production.")
    train: int = Field(description="Training texts of these data with their own labels.")
    validation: int
    test: int
    live_volunteered: int = Field(description="Live texts that train: feedback without being asked")
    live_sampled: int = Field(description="Live texts that train: drawn at random for a review.")
    new: int = Field(description="Live texts among these that production was not trained on.")
    replaced: int = Field(
        description="Training rows of the data with feedback, whose label counts."
    )
    forgotten_rows: int = Field(description="Rows of the data that must be forgotten.")
    evaluated_test: int = Field(description="Texts of the test split for evaluation.")
    evaluated_live: int = Field(description="Live texts for evaluation: drawn at random, held out.")
    left_out: dict[TextExclusionReason, int] = Field(
        description="Live texts used for neither, by reason."
    )


class MetricWithIntervalView(ResponseModel):
    """A metric with its 95% interval."""

    value: float
    low: float
    high: float


class VersionComparisonView(ResponseModel):
    """Both versions on the same texts."""

    texts: int
    current: MetricWithIntervalView
    new: MetricWithIntervalView
    difference: float = Field(description="Of the metric. Positive: the new version is better.")
    better: int = Field(description="Texts that the new version predicts better.")
    worse: int
    p_better: float = Field(
        description="Probability of such a lead if both versions were equally good."
    )
    p_worse: float = Field(description="The same of such a deficit.")


class RetrainingComparison(ResponseModel):
    """How the new version compares with the one in production."""

    metric: MetricName
    all: VersionComparisonView
    test: VersionComparisonView | None = Field(description="On the test split of the data.")
    live: VersionComparisonView | None = Field(description="On live texts that were held out.")
    tries: int = Field(description="Versions that the test has compared so far, this one included.")


class RetrainingErrorView(ResponseModel):
    """Why a run failed."""

    code: str
    message: str


class RetrainingRunView(ResponseModel):
    """A retraining of a model."""

    id: UUID
    model: str
    state: RetrainingState
    trigger: Trigger
    new_labels: int = Field(description="Texts with feedback since the previous run.")
    level: float
    current: str = Field(description="The version in production when the run began.")
    new: str | None = Field(description="The version that was made.")
    summary: str = Field(description="What happened, in a sentence or two.")
    reasons: list[NotPromotedReason] = Field(
        description="Why the run did not promote the new version. If its state is `promoted`, "
        "somebody did so before it was compared."
    )
    data: TextCounts | None
    result: RetrainingComparison | None
    dataset_id: UUID | None = Field(description="The dataset that it trains on.")
    sweep_id: UUID | None
    job_id: UUID | None = Field(description="The job that makes the new version.")
    current_run_id: UUID | None = Field(description="Predictions of the version in production.")
    new_run_id: UUID | None = Field(description="Predictions of the new version.")
    error: RetrainingErrorView | None
    created_at: Timestamp
    finished_at: Timestamp | None

    @property
    def location(self) -> str:
        return f"/v1/models/{self.model}/retraining/runs/{self.id}"
