"""Bodies of the routes of prediction runs."""

from typing import Annotated, Any, Self

from pydantic import Field

from app.http.fields import Body, Metadata, Text, Timestamp, View
from app.jobs.schemas import (
    ErrorListItem,
    JobError,
    JobWait,
    Queued,
    progress,
    waiting_for,
    why_failed,
    why_listed,
)
from app.queue.states import JobState
from app.queue.tables import Job


class PredictionCreate(Body):
    """A model's answers to every row of an uploaded file. Only `dataset` has no default."""

    dataset: Annotated[str, Text(128)] = Field(
        description="An uploaded data set: `name` (its newest version), `name:2`, or its id. It "
        "needs no labels: upload it with `purpose=predict`."
    )
    model: Annotated[str, Text(200)] | None = Field(
        default=None,
        description="`name` (its production), `name@alias` or `name:3`; left out: the only one in "
        "production. The run keeps the version that this means now.",
    )
    name: Annotated[str, Text(200)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-100, le=100, description="Higher is sooner.")


class PredictionSummary(View):
    """What came out."""

    rows: int
    cut: int = Field(description="Texts that were longer than the model reads.")
    predicted: dict[str, int] = Field(description="Rows by the label that they got.")


class PredictionListItem(Queued):
    """A prediction run, as lists show it."""

    prefix = "/v1/predictions"

    name: str | None
    metadata: dict[str, str]
    state: JobState
    model: str = Field(description="The version that answers.")
    dataset: str
    text_column: str
    priority: int
    attempt: int
    failures_counted: int = Field(description="In a row without progress.")
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
    def listed(cls, run: Job, queue_position: int | None) -> Self:
        """`queue_position` is not in the row: it depends on the others."""
        return cls(**_fields(run, queue_position), error=why_listed(run))


class PredictionView(PredictionListItem):
    """A prediction run."""

    summary: PredictionSummary | None
    error: JobError | None

    @classmethod
    def of(cls, run: Job, queue_position: int | None) -> "PredictionView":
        """As `listed`."""
        fields = _fields(run, queue_position)
        summary = None if run.summary is None else PredictionSummary.model_validate(run.summary)
        return cls(**fields, summary=summary, error=why_failed(run))


def _fields(run: Job, queue_position: int | None) -> dict[str, Any]:
    return {
        **{name: getattr(run, name) for name in _SAME},
        "metadata": run.labels,
        "model": run.base,
        "dataset": run.spec["data"]["source"],
        "text_column": run.spec["data"]["text_column"],
        "rows_done": run.step,
        "rows": run.total_steps or 0,
        "progress": progress(run) or 0.0,
        "queue_position": queue_position,
        "waiting": waiting_for(run),
        "has_results": run.artifact_id is not None,
    }


_SAME = frozenset(PredictionListItem.model_fields) & frozenset(Job.__mapper__.columns.keys())
