"""What callers do with jobs: plan, submit, cancel, delete."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.artifacts import service as artifacts
from app.artifacts.store import Store
from app.db.base import JsonObject
from app.db.clock import now
from app.db.turns import take_turns
from app.idempotency import service as idempotency
from app.idempotency.calls import Call
from app.jobs import bases, data, estimate, repository
from app.jobs.bases import Base
from app.jobs.errors import TooManyJobs
from app.jobs.schemas import JobCreate, JobView, Parameters, Plan, Queued
from app.jobs.states import Lane
from app.jobs.tables import Job
from app.queue import JobQueue
from app.settings import Settings
from lora_core import fit
from lora_core.specs.train import TrainSpec

LAST_JOBS = 5  # whose speed an estimate goes by
SHORT_SECONDS = 10.0  # a training below it has hardly got going, and its speed tells nothing
GUESSED_LABELS = 2  # of a hub data set, which is not read before the job runs

Shown = TypeVar("Shown", bound=Queued)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Draft:
    """A job that could run: everything resolved, nothing stored."""

    spec: TrainSpec
    dataset_ids: dict[str, str]
    lane: Lane
    parameters: Parameters
    cost: estimate.Cost


def plan(session: Session, *, body: JobCreate, base: Base, settings: Settings) -> Plan:
    """What `submit` would do. Raises the same, but for `TooManyJobs`: a plan takes no place."""
    draft = _draft(session, body=body, base=base, settings=settings)
    return Plan(
        parameters=draft.parameters,
        estimated_seconds=draft.cost.seconds,
        queue_position=repository.next_position(session, lane=draft.lane, priority=body.priority),
        spec=draft.spec.model_dump(mode="json"),
    )


def submit(
    session: Session,
    *,
    body: JobCreate,
    base: Base,
    settings: Settings,
    queue: JobQueue,
    call: Call,
) -> JobView:
    """Store a job, commit, then tell the workers.

    `base` was looked up by `bases.find` before the transaction. Raises `BaseNotFound` when it was
    deleted since, the kinds of `SpecError` when the spec does not fit it, and what `data.resolve`,
    `idempotency.begin` and `enqueue` raise.
    """
    idempotency.begin(session, call)
    draft = _draft(session, body=body, base=base, settings=settings)
    data.hold(session, draft.dataset_ids)
    job = Job(
        name=body.name,
        labels=body.metadata,
        method=draft.spec.method.type,
        lane=draft.lane,
        priority=body.priority,
        spec=draft.spec.model_dump(mode="json"),
        spec_version=draft.spec.spec_version,
        dataset_ids=draft.dataset_ids,
        base=draft.spec.base,
        register_as=body.register_as,
        time_limit_seconds=body.time_limit_seconds,
        plan={
            "parameters": draft.parameters.model_dump(),
            "estimated_seconds": draft.cost.seconds,
            "flops_per_token": draft.cost.flops_per_token,
        },
    )
    view = enqueue(session, job, view_of=JobView.of, settings=settings, queue=queue, call=call)
    log.info("job submitted", job_id=str(job.id), lane=draft.lane)
    return view


def enqueue(
    session: Session,
    job: Job,
    *,
    view_of: Callable[[Job, int | None], Shown],
    settings: Settings,
    queue: JobQueue,
    call: Call,
) -> Shown:
    """Store what is to be run, keep the answer, commit, then tell the workers.

    Raises `TooManyJobs`.
    """
    take_turns(session, f"jobs of {call.caller_id}")  # or two at once would both find room
    if repository.unfinished(session, call.caller_id) >= settings.key_jobs:
        raise TooManyJobs(limit=settings.key_jobs)
    job.created_by, job.spec_sha256 = call.caller_id, _digest(job.spec)
    job.dispatched_at = now()  # the hint below; a lost one is repeated
    repository.add(session, job)
    view = view_of(job, repository.positions(session, [job.id]).get(job.id))
    idempotency.keep(session, call, status=202, body=view, location=view.location)
    session.commit()
    queue.hint(job.id, lane=Lane(job.lane))
    return view


def cancel(session: Session, *, job_id: UUID) -> Job:
    """A queued job is cancelled, a running one asked to stop, an ended one stays as it is.

    Raises `JobNotFound`.
    """
    repository.request_cancel(session, job_id)
    job = repository.get(session, job_id)
    session.commit()
    return job


def delete(session: Session, *, job_id: UUID, store: Store) -> None:
    """Forget a job that has ended, and what it made unless a model version needs it.

    Raises `JobNotFound`, `JobNotFinished`.
    """
    artifacts.forget_unused(session, store, repository.remove(session, job_id))


def _draft(session: Session, *, body: JobCreate, base: Base, settings: Settings) -> Draft:
    bases.check_there(session, base)
    asked = body.spec.model_copy(update={"base": base.name, "base_revision": base.revision})
    shape = fit.read_shape(base.config, base=base.name)
    fit.check(shape, asked)
    max_length = shape.max_length(asked.data.max_length)
    found = data.resolve(session, asked.data, settings=settings, max_length=max_length)
    spec = asked.model_copy(update={"data": found.spec})
    lane = _lane(spec.runtime.device)
    census = fit.census(shape, spec.method, len(found.labels or "?" * GUESSED_LABELS))
    return Draft(
        spec=spec,
        dataset_ids=found.dataset_ids,
        lane=lane,
        parameters=Parameters(
            trainable=census.trainable, total=census.total, exact=found.labels is not None
        ),
        cost=estimate.cost(spec, shape=shape, data=found, speed=_speed(session, lane)),
    )


def _lane(device: str) -> Lane:
    if device == "auto":
        return Lane.ANY
    return Lane.GPU if device.startswith("cuda") else Lane.CPU


def _speed(session: Session, lane: Lane) -> float:
    """FLOP/s that the last jobs reached, each with its own spec."""
    reached = [
        plan["flops_per_token"] * summary["tokens_per_second"]
        for plan, summary in repository.finished(session, lane=lane, limit=LAST_JOBS)
        if summary.get("tokens_per_second") and "flops_per_token" in plan
        if summary.get("train_seconds", SHORT_SECONDS) >= SHORT_SECONDS
        if not summary.get("features_found")
    ]
    return estimate.speed(reached, lane)


def _digest(spec: JsonObject) -> str:
    """Names the content of a description."""
    canonical = json.dumps(
        spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()
