"""A large installation, written in bulk: the rows that years of use would have left."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import insert, text

from app.auth.tables import LOCAL_KEY_ID, ApiKey
from app.database.base import Base, new_id
from app.database.engines import Database
from app.datasets.tables import Dataset, summarize_profile
from app.queue.enums import AttemptOutcome, DeviceClass, JobKind, JobState
from app.queue.tables import Attempt, Checkpoint, Job, JobEvent, MetricPoint
from app.registry.tables import ModelVersion, RegisteredModel
from app.storage.store import Store
from app.storage.tables import MODEL_KIND, RESULTS_KIND, Artifact
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep, Trial
from benchmarks.page.stored import METHODS, METRICS, batched
from benchmarks.page.stored import SUMMARY as SHORT_RUN
from benchmarks.scale.plan import Size
from lora_core import manifest
from lora_core.specs.train import TrainSpec

DAY = 86_400.0
OLD_DAYS = 60  # since the jobs ended whose models garbage collection removes
CHUNK = 2000  # rows of one statement
POINTS = 100  # of a job that has curves
KEYS = 5
SWEEPS = 20
PER_SWEEP = 500  # trials
VERSIONS = 500  # of registered models
DATASETS = 50
LABELS = 5000  # of each dataset
ENDED = (JobState.SUCCEEDED,) * 8 + (JobState.FAILED, JobState.CANCELLED)
SUMMARY = {**SHORT_RUN, "tokens_per_second": 9000.0, "steps": 200, "best_step": 200}
PLAN = {
    "parameters": {"trainable": 480_386, "total": 23_000_000, "exact": True},
    "estimated_seconds": 60,
    "flops_per_token": 1.2e7,
}
Row = dict[str, Any]


def fill(database: Database, size: Size) -> None:
    """Jobs in every state, of several keys and sweeps, with attempts, events and curves."""
    specs = [TrainSpec.model_validate({"method": each}).model_dump(mode="json") for each in METHODS]
    keys = [new_id() for _ in range(KEYS)]
    sweeps = [new_id() for _ in range(min(SWEEPS, size.jobs // (2 * PER_SWEEP)))]
    _write(database, ApiKey, (_key(key) for key in keys))
    _write(database, Sweep, (_sweep(sweep) for sweep in sweeps))
    jobs = list(_jobs(size, [LOCAL_KEY_ID, *keys], sweeps, specs))
    models = [job for job in jobs if job["state"] == JobState.SUCCEEDED][: size.models]
    # The rows of artifacts come first, since jobs refer to them.
    _write(database, Artifact, (_artifact(job) for job in models))
    _write(database, Job, jobs)
    attempted = [job for job in jobs if job["attempt"]]
    _write(database, Attempt, map(_attempt, attempted))
    _write(database, JobEvent, (event for job in jobs for event in _events(job)))
    _write(database, MetricPoint, _points([job["id"] for job in attempted], size.points))
    _write(database, Checkpoint, (_checkpoint(job) for job in attempted[-2000:]))
    _write(database, Trial, _trials(jobs))
    _write(database, Dataset, map(_dataset, range(DATASETS)))
    _register(database, [job for job in attempted if job["state"] == JobState.SUCCEEDED])
    _analyze(database)


def store_files(store: Store, database: Database, scratch: Path) -> None:
    """A small file for every model that garbage collection will remove."""
    with database.read() as session:
        keys = session.scalars(text("SELECT key FROM artifacts WHERE key LIKE 'jobs/%'")).all()
    for number, key in enumerate(keys):
        folder = scratch / str(number)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        manifest.create_and_save(folder, {"format": 1})
        store.move_directory_into_store(folder, key)


def _jobs(
    size: Size, keys: Sequence[UUID], sweeps: Sequence[UUID], specs: Sequence[Row]
) -> Iterator[Row]:
    """The oldest first; what is queued or runs comes last."""
    now = time.time()
    running = 20
    for number in range(size.jobs):
        left = size.jobs - number
        state = JobState.QUEUED if left <= size.queued else ENDED[number // 7 % len(ENDED)]
        if size.queued < left <= size.queued + running:
            state = JobState.RUNNING
        old = number < size.jobs - size.queued - running
        created = now - (OLD_DAYS + 30) * DAY + number if old else now - left / 100
        prediction = number % 20 == 19
        spec = specs[number % len(specs)]
        summary = {"rows": 200, "cut": 0, "predicted": {}} if prediction else SUMMARY
        trial = number // PER_SWEEP
        sweep = sweeps[trial] if trial < len(sweeps) and state.final and not prediction else None
        yield {
            "id": new_id(),
            "created_by": keys[number % len(keys)],
            "kind": JobKind.PREDICTION if prediction else JobKind.TRAINING,
            "name": f"run {number}",
            "user_metadata": {},
            "method": "predict" if prediction else spec["method"]["type"],
            "device_class": DeviceClass.ANY if state == JobState.QUEUED else DeviceClass.CPU,
            "spec": {"data": {"source": "texts:1", "text_column": "text"}} if prediction else spec,
            "spec_version": 2,
            "dataset_ids": {},
            "base": "sentiment:1" if prediction else "minilm-l6",
            "plan": {} if prediction else PLAN,
            "trial_sha256": f"{number:064x}",
            "sweep_id": sweep,
            "state": state,
            "run_after": created,
            "attempt": 0 if state == JobState.QUEUED else 1,
            "worker": "worker" if state == JobState.RUNNING else None,
            "lease_expires_at": now + DAY if state == JobState.RUNNING else None,
            "step": 0 if state == JobState.QUEUED else 200,
            "total_steps": 200,
            "stream_seq": 3 + POINTS,
            "summary": summary if state == JobState.SUCCEEDED else None,
            "error_code": "out_of_memory" if state == JobState.FAILED else None,
            "error_message": "Out of memory." if state == JobState.FAILED else None,
            "artifact_id": None,
            "created_at": created,
            "started_at": None if state == JobState.QUEUED else created + 1,
            "finished_at": created + 61 if state.final else None,
            "thinned_at": created + 75 if state.final else None,
        }


def _artifact(job: Row) -> Row:
    """Also points the job at it."""
    job["artifact_id"] = new_id()
    kind, folder = (
        (RESULTS_KIND, "predictions") if job["kind"] == JobKind.PREDICTION else (MODEL_KIND, "jobs")
    )
    return {
        "id": job["artifact_id"],
        "job_id": job["id"],
        "kind": kind,
        "key": f"{folder}/{job['id']}/a1",
        "manifest_sha256": "0" * 64,
        "bytes": 2,
        "created_at": job["finished_at"],
    }


def _attempt(job: Row) -> Row:
    outcome = {JobState.RUNNING: None, JobState.CANCELLED: AttemptOutcome.CANCELLED}
    return {
        "job_id": job["id"],
        "attempt": 1,
        "worker": "worker",
        "host": "there",
        "pid": 1,
        "environment": {"boot_id": "boot", "pid_start": 1},
        "device": "cpu",
        "started_at": job["started_at"],
        "ended_at": job["finished_at"],
        "outcome": outcome.get(job["state"], AttemptOutcome(job["state"]))
        if job["state"] != JobState.RUNNING
        else None,
    }


def _events(job: Row) -> Iterator[Row]:
    words = ["queued", "started", job["state"]][: 3 if job["finished_at"] else job["attempt"] + 1]
    for seq, kind in enumerate(words, start=1):
        yield {
            "job_id": job["id"],
            "seq": seq,
            "attempt": job["attempt"],
            "kind": kind,
            "level": "info",
            "message": f"The job was {kind}.",
            "data": {},
            "at": job["created_at"],
        }


def _points(jobs: Sequence[UUID], points: int) -> Iterator[Row]:
    wanted = points // POINTS
    for job_id in jobs[:: max(1, len(jobs) // wanted)][:wanted]:
        for step in range(1, POINTS + 1):
            yield {
                "job_id": job_id,
                "seq": step + 3,
                "attempt": 1,
                "split": "train",
                "name": "loss",
                "step": step,
                "epoch": step / POINTS,
                "value": 1 / step,
                "nonfinite": False,
            }


def _checkpoint(job: Row) -> Row:
    return {
        "job_id": job["id"],
        "attempt": 1,
        "step": 100,
        "seq": 2,
        "key": f"checkpoints/{job['id']}/a1/step-100",
        "manifest_sha256": "0" * 64,
        "bytes": 1,
        "at": job["created_at"],
    }


def _key(key: UUID) -> Row:
    return {"id": key, "name": f"key {key}", "scopes": ["jobs:read", "jobs:write"]}


def _sweep(sweep: UUID) -> Row:
    return {
        "id": sweep,
        "created_by": LOCAL_KEY_ID,
        "name": "sweep",
        "user_metadata": {},
        "job": {"method": {"type": "lora"}},
        "space": [["method.r", [2, 4]]],
        "strategy": {"type": "grid"},
        "resolved_inputs": {"bases": {}, "sources": {}},
        "objective": "accuracy",
        "state": SweepState.FINISHED,
        "finished_at": time.time(),
    }


def _trials(jobs: Sequence[Row]) -> Iterator[Row]:
    for number, job in enumerate(jobs):
        if job["sweep_id"] is not None:
            yield {
                "sweep_id": job["sweep_id"],
                "number": number % PER_SWEEP + 1,
                "rung": 0,
                "settings": {"method.r": 2},
                "job_columns": {},
                "trial_sha256": job["trial_sha256"],
                "job_id": job["id"],
            }


def _dataset(number: int) -> Row:
    labels = {f"label {each}": 10 for each in range(LABELS)}
    profile = {
        "rows": 10 * LABELS, "labels": labels, "splits": {}, "split_column": None,
        "duplicates": 0, "conflicting_duplicates": 0, "mean_characters": 80.0,
        "max_characters": 200, "text_column": "text", "label_column": "label",
        "diagnosis": None,
    }  # fmt: skip
    return {
        "id": new_id(),
        "created_by": LOCAL_KEY_ID,
        "name": f"texts-{number}",
        "version": 1,
        "filename": "texts.csv",
        "suffix": ".csv",
        "sha256": f"{number:064x}",
        "bytes": 1,
        "text_column": "text",
        "label_column": "label",
        "rows": 10 * LABELS,
        "profile": profile,
        "overview": summarize_profile(profile),
    }


def _register(database: Database, jobs: Sequence[Row]) -> None:
    """Versions of models, of artifacts of their own, which stay."""
    chosen = [job for job in jobs[::-1] if job["kind"] == JobKind.TRAINING][:VERSIONS]
    artifacts = [{**_artifact(dict(job)), "key": f"imports/{new_id()}"} for job in chosen]
    model = {"id": new_id(), "name": "sentiment", "last_number": len(chosen)}
    _write(database, Artifact, artifacts)
    _write(database, RegisteredModel, [model])
    _write(
        database,
        ModelVersion,
        (
            {
                "id": new_id(),
                "model_id": model["id"],
                "number": number,
                "artifact_id": artifact["id"],
                "job_id": artifact["job_id"],
                "base": "minilm-l6",
                "method": "lora",
                "metrics": METRICS,
            }
            for number, artifact in enumerate(artifacts, start=1)
        ),
    )


def _write(database: Database, table: type[Base], rows: Any) -> None:
    with database.write() as session:
        for chunk in batched(iter(rows), CHUNK):
            session.execute(insert(table), chunk)


def _analyze(database: Database) -> None:
    """Do what PostgreSQL's autovacuum does in an installation in use; SQLite has none.

    VACUUM marks the pages that an index-only scan need not visit.
    """
    if database.write_engine.dialect.name == "postgresql":
        with database.write_engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("VACUUM (ANALYZE)"))
