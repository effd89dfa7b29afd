"""Rows of jobs that have ended, written without any training."""

import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id
from app.database.engines import Database
from app.jobs import repository
from app.queue.enums import DeviceClass, JobState
from app.queue.tables import Job, MetricPoint
from lora_core.specs.train import TrainSpec

METHODS: tuple[dict[str, Any], ...] = (
    {"type": "lora", "r": 8},
    {"type": "lora", "r": 16, "alpha": 32},
    {"type": "baseline"},
    {"type": "full"},
)
METRICS = {"loss": 0.5, "accuracy": 0.8, "balanced_accuracy": 0.8, "macro_f1": 0.8}
SUMMARY: dict[str, Any] = {
    "labels": ["negative", "positive"], "trainable_parameters": 480_386,
    "total_parameters": 23_000_000, "examples": {"train": 8000, "validation": 1000, "test": 1000},
    "stopped_early": False, "train_seconds": 60.0, "validation": METRICS, "test": METRICS,
    "linear": {"validation": METRICS, "test": METRICS},
}  # fmt: skip
CURVES = ("loss", "learning_rate", "grad_norm", "reviews_per_second")  # of the training part
CHUNK = 50_000  # rows of one statement


def store_jobs(database: Database, *, jobs: int, steps: int) -> None:
    """Store succeeded jobs, each with a loss curve."""
    ids = []
    with database.write() as session:
        for number in range(jobs):
            method = METHODS[number % len(METHODS)]
            ids.append(_add(session, f"run {number}", method, steps=steps, points=steps))
    rows = (point for job_id in ids for point in _curves(job_id, steps, CURVES[:1]))
    _insert(database, rows)


def store_long_job(database: Database, *, points: int) -> UUID:
    """Store a job with `points` points, the same number on each curve; returns its ID."""
    steps = points // len(CURVES)
    with database.write() as session:
        job_id = _add(session, "long", METHODS[0], steps=steps, points=points)
    _insert(database, _curves(job_id, steps, CURVES))
    return job_id


def _add(session: Session, name: str, method: dict[str, Any], *, steps: int, points: int) -> UUID:
    spec = TrainSpec.model_validate({"method": method}).model_dump(mode="json")
    now = time.time()
    job = Job(
        id=new_id(),
        created_by=LOCAL_KEY_ID,
        name=name,
        user_metadata={},
        method=method["type"],
        device_class=DeviceClass.CPU,
        spec=spec,
        spec_version=2,
        dataset_ids={},
        base="minilm-l6",
        plan={
            "parameters": {"trainable": 480_386, "total": 23_000_000, "exact": True},
            "estimated_seconds": 60,
        },
        state=JobState.SUCCEEDED,
        step=steps,
        total_steps=steps,
        started_at=now - 60,
        finished_at=now,
        summary={**SUMMARY, "steps": steps, "best_step": steps},
    )
    repository.add_job_with_first_event(session, job)
    job.stream_seq += points
    return job.id


def _curves(job_id: UUID, steps: int, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Points that fall like a loss, with some noise that is the same each time."""
    for row, (step, name) in enumerate((s, n) for s in range(1, steps + 1) for n in names):
        value = math.exp(-3 * step / steps) + 0.1 * math.sin(12.9898 * row)
        yield {
            "job_id": job_id, "seq": row + 2, "attempt": 1, "split": "train", "name": name,
            "step": step, "epoch": step / steps, "value": value, "nonfinite": False,
        }  # fmt: skip


def _insert(database: Database, rows: Iterator[dict[str, Any]]) -> None:
    for chunk in batched(rows, CHUNK):
        with database.write() as session:
            session.execute(insert(MetricPoint), chunk)


def batched(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Split into chunks."""
    while chunk := list(islice(rows, size)):
        yield chunk
