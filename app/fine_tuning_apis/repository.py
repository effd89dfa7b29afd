"""Queries that the fine-tuning APIs share."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.queue.events import EventContent, add_job_event
from app.queue.tables import Job, MetricPoint
from lora_core.specs.data import Split


class TrainingSummaryNumbers(NamedTuple):
    """Numbers in the summary of a job that succeeded; whole summaries grow with the labels."""

    best_step: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    valid_loss: float | None = None
    valid_accuracy: float | None = None

    @property
    def kept_step(self) -> int:
        """The step of the model that was kept; 0 for methods without steps."""
        return self.best_step or self.steps or 0

    @property
    def trained_tokens(self) -> int | None:
        """Tokens read in training; None for methods without epochs."""
        if self.tokens_per_second is None or self.train_seconds is None:
            return None
        return int(self.tokens_per_second * self.train_seconds)


SUMMARY_COLUMNS = (  # in the order of `TrainingSummaryNumbers`
    Job.summary["best_step"].as_integer(),
    Job.summary["steps"].as_integer(),
    Job.summary["train_seconds"].as_float(),
    Job.summary["tokens_per_second"].as_float(),
    *(
        Job.summary[(split, name)].as_float()
        for split in (Split.TRAIN.value, Split.VALIDATION.value)
        for name in ("loss", "accuracy")
    ),
)
DEFERRED = tuple(
    defer(column, raiseload=True) for column in (Job.summary, Job.error_detail, Job.notes)
)


def add_job_events(session: Session, job_id: UUID, events: Sequence[EventContent]) -> Job:
    """Add events to a job that was just created; return it."""
    job = session.get_one(Job, job_id)
    for content in events:
        job.stream_seq += 1
        add_job_event(session, job, content)
    return job


def list_loss_and_accuracy_points(
    session: Session, job_ids: Sequence[UUID]
) -> dict[UUID, list[MetricPoint]]:
    """Return the losses and accuracies of each job, by step."""
    points = session.scalars(
        select(MetricPoint)
        .where(MetricPoint.job_id.in_(job_ids), MetricPoint.name.in_(("loss", "accuracy")))
        .order_by(MetricPoint.step, MetricPoint.seq)
    )
    points_by_job: dict[UUID, list[MetricPoint]] = {job_id: [] for job_id in job_ids}
    for point in points:
        points_by_job[point.job_id].append(point)
    return points_by_job
