"""Request and response bodies of the prediction run routes."""

from typing import Annotated

from pydantic import Field

from app.http.fields import CleanText, Metadata, RequestModel, ResponseModel, Timestamp
from app.jobs.schemas import JobErrorSummaryView, JobErrorView, JobWaitReason, LocatedResource
from app.queue.enums import JobState


class PredictionRunCreate(RequestModel):
    """Predictions for every row of an uploaded file. Only `dataset` has no default."""

    dataset: Annotated[str, CleanText(128)] = Field(
        description="An uploaded dataset: `name` (its newest version), `name:2`, or its id. It "
        "needs no labels: upload it with `purpose=predict`."
    )
    model: Annotated[str, CleanText(200)] | None = Field(
        default=None,
        description="`name` (its version in production), `name@alias` or `name:3`; omitted: the "
        "only model in production. The run uses the version that this refers to now.",
    )
    name: Annotated[str, CleanText(200)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-100, le=100, description="Higher is sooner.")


class ValueSummary(ResponseModel):
    """The predicted numbers."""

    mean: float
    min: float
    max: float


class PredictionResultSummary(ResponseModel):
    """The summary of a finished prediction run."""

    rows: int
    cut: int = Field(description="Texts that were truncated.")
    predicted: dict[str, int] = Field(
        description="Rows by predicted label. A row with several labels counts for each."
    )
    unlabeled: int | None = Field(
        None, description="Multi-label: rows without any label.", exclude_if=lambda n: n is None
    )
    unlabeled_by_target: dict[str, int] = Field(
        default={},
        description="Several targets: rows without any label of each that is a set of labels.",
        exclude_if=lambda counts: not counts,
    )
    value: ValueSummary | None = Field(
        None, description="Regression: the predicted numbers.", exclude_if=lambda v: v is None
    )
    values: dict[str, ValueSummary] = Field(
        default={},
        description="Several targets: the numbers of each that is one. Labels are TARGET/LABEL.",
        exclude_if=lambda values: not values,
    )


class PredictionRunListItem(LocatedResource):
    """A prediction run in a list."""

    prefix = "/v1/predictions"

    name: str | None
    metadata: dict[str, str]
    state: JobState
    model: str = Field(description="The model version.")
    dataset: str
    text_column: str
    text_pair_column: str | None
    priority: int
    attempt: int
    failures_counted: int = Field(description="Consecutive failures without progress.")
    rows_done: int
    rows: int
    progress: float
    queue_position: int | None
    waiting: JobWaitReason | None
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None
    error: JobErrorSummaryView | None
    has_results: bool


class PredictionRunView(PredictionRunListItem):
    """A prediction run."""

    summary: PredictionResultSummary | None
    error: JobErrorView | None
