"""Response bodies of prediction runs, made from their rows."""

from typing import Any

from app.jobs.views import (
    completed_fraction,
    job_error_summary_view,
    job_error_view,
    job_wait_reason_view,
)
from app.predictions.schemas import (
    PredictionResultSummary,
    PredictionRunListItem,
    PredictionRunView,
)
from app.queue.tables import Job


def run_list_item(run: Job, queue_position: int | None) -> PredictionRunListItem:
    """`queue_position` is not in the row: it depends on the other rows."""
    return PredictionRunListItem(**_fields(run, queue_position), error=job_error_summary_view(run))


def run_view(run: Job, queue_position: int | None) -> PredictionRunView:
    """`queue_position` is not in the row: it depends on the other rows."""
    summary = None if run.summary is None else PredictionResultSummary.model_validate(run.summary)
    return PredictionRunView(
        **_fields(run, queue_position), summary=summary, error=job_error_view(run)
    )


def _fields(run: Job, queue_position: int | None) -> dict[str, Any]:
    return {
        **{name: getattr(run, name) for name in _COPIED_COLUMNS},
        "metadata": run.user_metadata,
        "model": run.base,
        "dataset": run.spec["data"]["source"],
        "text_column": run.spec["data"]["text_column"],
        "text_pair_column": run.spec["data"].get("text_pair_column"),
        "rows_done": run.step,
        "rows": run.total_steps or 0,
        "progress": completed_fraction(run) or 0.0,
        "queue_position": queue_position,
        "waiting": job_wait_reason_view(run),
        "has_results": run.artifact_id is not None,
    }


_COPIED_COLUMNS = frozenset(PredictionRunListItem.model_fields) & frozenset(
    Job.__mapper__.columns.keys()
)
