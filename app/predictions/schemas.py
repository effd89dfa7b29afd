"""Request and response bodies of the prediction run routes."""

from typing import Annotated, Any, Self

from pydantic import Field

from app.http.fields import CleanText, Metadata, RequestModel, ResponseModel, Timestamp
from app.jobs.schemas import (
    ErrorListItem,
    JobError,
    JobWait,
    QueuedResource,
    error_list_item,
    job_error,
    job_wait,
    progress,
)
from app.queue.states import JobState
from app.queue.tables import Job


class PredictionCreate(RequestModel):
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


class PredictionSummary(ResponseModel):
    """The summary of a finished prediction run."""

    rows: int
    cut: int = Field(description="Texts that were truncated.")
    predicted: dict[str, int] = Field(description="Rows by predicted label.")


class PredictionListItem(QueuedResource):
    """A prediction run in a list."""

    prefix = "/v1/predictions"

    name: str | None
    metadata: dict[str, str]
    state: JobState
    model: str = Field(description="The model version.")
    dataset: str
    text_column: str
    priority: int
    attempt: int
    failures_counted: int = Field(description="Consecutive failures without progress.")
    rows_done: int
    rows: int
    progress: float
    queue_position: int | None
    waiting: JobWait | None
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    cancel_requested_at: Timestamp | None
    error: ErrorListItem | None
    has_results: bool

    @classmethod
    def from_listed_run(cls, run: Job, queue_position: int | None) -> Self:
        """Build the view. `queue_position` is not in the row: it depends on the other rows."""
        return cls(**_fields(run, queue_position), error=error_list_item(run))


class PredictionView(PredictionListItem):
    """A prediction run."""

    summary: PredictionSummary | None
    error: JobError | None

    @classmethod
    def from_run(cls, run: Job, queue_position: int | None) -> "PredictionView":
        """Build the view, as `from_listed_run` does."""
        fields = _fields(run, queue_position)
        summary = None if run.summary is None else PredictionSummary.model_validate(run.summary)
        return cls(**fields, summary=summary, error=job_error(run))


def _fields(run: Job, queue_position: int | None) -> dict[str, Any]:
    return {
        **{name: getattr(run, name) for name in _COPIED_COLUMNS},
        "metadata": run.labels,
        "model": run.base,
        "dataset": run.spec["data"]["source"],
        "text_column": run.spec["data"]["text_column"],
        "rows_done": run.step,
        "rows": run.total_steps or 0,
        "progress": progress(run) or 0.0,
        "queue_position": queue_position,
        "waiting": job_wait(run),
        "has_results": run.artifact_id is not None,
    }


_COPIED_COLUMNS = frozenset(PredictionListItem.model_fields) & frozenset(
    Job.__mapper__.columns.keys()
)
