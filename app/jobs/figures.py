"""The few numbers of a result that a list shows, read without the rest of it."""

from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.base import JsonObject
from app.jobs.tables import Job

PARTS = ("test", "validation")  # the first that there is


class Figures(NamedTuple):
    """None: not known, or not yet."""

    accuracy: float | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    model_version: str | None = None


def of(summary: JsonObject | None) -> Figures:
    """Those of a summary that was read as a whole."""
    found: dict[str, Any] = summary or {}
    accuracies = ((found.get(part) or {}).get("accuracy") for part in PARTS)
    return Figures(
        next((each for each in accuracies if each is not None), None),
        found.get("trainable_parameters"),
        found.get("total_parameters"),
        found.get("model_version"),
    )


def read(session: Session, job_ids: Collection[UUID]) -> dict[UUID, Figures]:
    """Those of jobs: the database takes them out of summaries, which grow with the labels."""
    rows = session.execute(
        select(
            Job.id,
            func.coalesce(*(Job.summary[(part, "accuracy")].as_float() for part in PARTS)),
            Job.summary["trainable_parameters"].as_integer(),
            Job.summary["total_parameters"].as_integer(),
            Job.summary["model_version"].as_string(),
        ).where(Job.id.in_(job_ids))
    )
    return {job_id: Figures(*figures) for job_id, *figures in rows}
