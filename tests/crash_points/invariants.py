"""What holds in every installation in which nothing is running, whatever happened before.

Each invariant is a function that yields a sentence for each violation.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from sqlalchemy import func, select, text, update

from app.datasets import files as dataset_files
from app.datasets.tables import Dataset
from app.idempotency.tables import IdempotencyKey
from app.labeling.tables import LabelingAnnotation, LabelingChosenText, LabelingProject
from app.outbox.tables import WebhookDelivery
from app.queue.enums import AttemptOutcome, JobState
from app.queue.tables import Attempt, Checkpoint, Job, JobEvent, MetricPoint
from app.registry.tables import ModelAlias, ModelVersion
from app.resources import Resources
from app.retention.service import collect_garbage
from app.retraining.tables import RetrainingRun
from app.storage.errors import StoredArtifactCorrupt
from app.storage.store import ArtifactRef, verify_artifact
from app.storage.tables import Artifact
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep, Trial
from lora_core.errors import LoraCoreError

DAYS = 2 * 86_400.0
Invariant = Callable[[Resources], Iterator[str]]


def check(resources: Resources) -> list[str]:
    """Return every violation."""
    return [
        f"{invariant.__name__}: {violation}"
        for invariant in INVARIANTS
        for violation in invariant(resources)
    ]


def database_is_intact(resources: Resources) -> Iterator[str]:
    """SQLite finds its file and its foreign keys in order. PostgreSQL does so by itself."""
    if resources.database.write_engine.dialect.name != "sqlite":
        return
    with resources.database.read() as session:
        (found,) = session.execute(text("PRAGMA integrity_check")).one()
        if found != "ok":
            yield found
        yield from map(str, session.execute(text("PRAGMA foreign_key_check")))


def every_job_has_ended(resources: Resources) -> Iterator[str]:
    """A job is in a final state, without a lease, has an error exactly if it failed, and a result
    if it succeeded.
    """
    with resources.database.read() as session:
        for job in session.scalars(select(Job)):
            if not JobState(job.state).final:
                yield f"job {job.id} is {job.state}"
            if job.worker is not None or job.lease_expires_at is not None:
                yield f"job {job.id} has a lease"
            if (job.state == JobState.FAILED) != (job.error_code is not None):
                yield f"job {job.id} is {job.state} with the error {job.error_code}"
            if job.state == JobState.SUCCEEDED and job.summary is None:
                yield f"job {job.id} has succeeded without a summary"
            if job.finished_at is None:
                yield f"job {job.id} has ended at no time"


def attempts_are_consistent(resources: Resources) -> Iterator[str]:
    """They are numbered without a gap, do not overlap, have ended, and one at most succeeded."""
    with resources.database.read() as session:
        for job in session.scalars(select(Job)):
            of_job = select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.attempt)
            rows = session.scalars(of_job).all()
            if [each.attempt for each in rows] != list(range(1, job.attempt + 1)):
                yield f"job {job.id} has the attempts {[each.attempt for each in rows]}"
            if any(each.ended_at is None or each.outcome is None for each in rows):
                yield f"an attempt of job {job.id} has not ended"
            elif any(two.started_at < (one.ended_at or 0) for one, two in pairwise(rows)):
                yield f"two attempts of job {job.id} overlap"
            won = [each.attempt for each in rows if each.outcome == AttemptOutcome.SUCCEEDED]
            if won != ([job.attempt] if job.state == JobState.SUCCEEDED else []):
                yield f"job {job.id} is {job.state}, and its attempts {won} have succeeded"


def each_job_has_one_result(resources: Resources) -> Iterator[str]:
    """A job has at most one artifact, its own, and one version of the model that it should make."""
    with resources.database.read() as session:
        of_jobs = select(Artifact.job_id).where(Artifact.job_id.is_not(None))
        made = Counter(session.scalars(of_jobs))
        yield from (f"job {id_} has {count} artifacts" for id_, count in made.items() if count > 1)
        versions = Counter(session.scalars(select(ModelVersion.job_id)))
        for job in session.scalars(select(Job)):
            artifact = session.get(Artifact, job.artifact_id) if job.artifact_id else None
            if artifact is not None and artifact.job_id != job.id:
                yield f"job {job.id} has the artifact of another job"
            wanted = int(job.register_as is not None and job.state == JobState.SUCCEEDED)
            if versions[job.id] < wanted or versions[job.id] > 1:
                yield f"job {job.id} has {versions[job.id]} versions"


def curves_and_events_are_recorded_once(resources: Resources) -> Iterator[str]:
    """No step of a curve is there twice, and no number is beyond the last of its job."""
    with resources.database.read() as session:
        point = (MetricPoint.job_id, MetricPoint.split, MetricPoint.name, MetricPoint.step)
        doubled = select(*point).group_by(*point).having(func.count() > 1)
        yield from (f"a point is there twice: {row}" for row in session.execute(doubled))
        for table in (MetricPoint, JobEvent):
            last = select(table.job_id, func.max(table.seq)).group_by(table.job_id)
            for job_id, seq in session.execute(last):
                job = session.get(Job, job_id)
                if job is not None and seq > job.stream_seq:
                    yield f"job {job_id} has the number {seq}, and its last is {job.stream_seq}"
        for job in session.scalars(select(Job).where(Job.state == JobState.SUCCEEDED)):
            ends = select(func.count()).where(
                JobEvent.job_id == job.id, JobEvent.kind == JobState.SUCCEEDED
            )
            if session.scalar(ends) != 1:
                yield f"job {job.id} has {session.scalar(ends)} events of its success"


def rows_have_their_files(resources: Resources) -> Iterator[str]:
    """Every artifact, checkpoint and upload with a row is stored, and has its digest."""
    with resources.database.read() as session:
        artifacts = session.scalars(select(Artifact)).all()
        refs = [(f"artifact {each.id}", each.ref) for each in artifacts]
        for each in session.scalars(select(Checkpoint).where(~Checkpoint.bad)):
            ref = ArtifactRef(each.key, each.manifest_sha256, each.bytes)
            refs.append((f"checkpoint {each.key}", ref))
        datasets = session.scalars(select(Dataset).where(Dataset.deleted_at.is_(None))).all()
    for name, ref in refs:
        try:
            verify_artifact(resources.store, ref, name=name)
        except (StoredArtifactCorrupt, LoraCoreError) as error:
            yield f"{name}: {error}"
    for dataset in datasets:
        try:
            resources.store.verified_file(dataset_files.store_key(dataset), dataset.sha256)
        except LoraCoreError as error:
            yield f"dataset {dataset.name}:{dataset.version}: {error}"


def aliases_point_to_stored_versions(resources: Resources) -> Iterator[str]:
    """The target of an alias is a version of its model."""
    with resources.database.read() as session:
        for alias in session.scalars(select(ModelAlias)):
            version = session.get(ModelVersion, alias.version_id)
            if version is None or version.model_id != alias.model_id:
                yield f"the alias {alias.alias} points to no version of its model"


def labels_are_neither_lost_nor_doubled(resources: Resources) -> Iterator[str]:
    """A text has as many labels as it misses less, and no project counts what is not there."""
    with resources.database.read() as session:
        made = Counter(
            map(
                tuple,
                session.execute(select(LabelingAnnotation.project_id, LabelingAnnotation.row)),
            )
        )
        chosen = session.scalars(select(LabelingChosenText)).all()
        for each in chosen:
            if each.missing != 1 - made.pop((each.project_id, each.row), 0):
                yield f"row {each.row} misses {each.missing} labels"
        yield from (f"row {row} has a label and was not chosen" for _, row in made)
        of_project = Counter(each.project_id for each in chosen)
        for project in session.scalars(select(LabelingProject)):
            if project.chosen != of_project[project.id]:
                yield f"project {project.name} has chosen {project.chosen} texts"


def sweeps_are_consistent(resources: Resources) -> Iterator[str]:
    """A sweep is over, and each of its trials has one job, which has succeeded.

    A stop cancels jobs, and its trials get others. A sweep that never became ready is invisible,
    and left to `nothing_is_left_over`.
    """
    with resources.database.read() as session:
        for sweep in session.scalars(select(Sweep).where(Sweep.ready)):
            if sweep.state != SweepState.FINISHED:
                yield f"sweep {sweep.id} is {sweep.state}"
            trials = session.scalars(select(Trial).where(Trial.sweep_id == sweep.id)).all()
            jobs = [session.get(Job, each.job_id) for each in trials if each.job_id is not None]
            if len(jobs) < len(trials) or len({each.id for each in jobs if each}) < len(trials):
                yield f"sweep {sweep.id}: {len(trials)} trials have {len(jobs)} jobs"
            if any(each is None or each.state != JobState.SUCCEEDED for each in jobs):
                yield f"sweep {sweep.id}: a job of a trial has not succeeded"
            own = (Job.sweep_id == sweep.id, Job.state != JobState.CANCELLED)
            made = session.scalar(select(func.count()).where(*own))
            if made != len(trials):
                yield f"sweep {sweep.id}: {made} jobs for {len(trials)} trials"


def retrainings_have_ended(resources: Resources) -> Iterator[str]:
    """No run of a rule is left half done."""
    with resources.database.read() as session:
        for run in session.scalars(select(RetrainingRun)):
            if run.finished_at is None:
                yield f"the run {run.id} is {run.state}"


def outbox_is_drained(resources: Resources) -> Iterator[str]:
    """No event waits to be sent."""
    with resources.database.read() as session:
        waiting = session.scalar(select(func.count()).where(WebhookDelivery.finished_at.is_(None)))
        if waiting:
            yield f"{waiting} deliveries wait"


def no_request_is_half_done(resources: Resources) -> Iterator[str]:
    """A reserved idempotency key has its response."""
    with resources.database.read() as session:
        for each in session.scalars(select(IdempotencyKey).where(IdempotencyKey.status == 0)):
            yield f"{each.route} has reserved a key and has no response"


def nothing_is_left_over(resources: Resources) -> Iterator[str]:
    """After a collection two days later, each file in the store has its row, and no directory of an
    attempt, of an upload or of an unfinished file is there, nor a sweep that never became ready.
    """
    settings = resources.settings
    yesterday = time.time() - DAYS
    for folder, folders, files in os.walk(settings.data_dir):
        for name in (*folders, *files):
            os.utime(os.path.join(folder, name), (yesterday, yesterday), follow_symlinks=False)
    with resources.database.write() as session:
        session.execute(update(Sweep).values(created_at=Sweep.created_at - DAYS))
    collect_garbage(resources, any_age=True)
    with resources.database.read() as session:
        for sweep in session.scalars(select(Sweep).where(Sweep.ready.is_(False))):
            yield f"sweep {sweep.id} never became ready, and is still there"
    for removal in collect_garbage(resources, any_age=True, dry_run=True).removals:
        yield f"{removal.kind} {removal.key} is still there: {removal.reason}"
    with resources.database.read() as session:
        keys = {each.key for each in session.scalars(select(Artifact))}
        keys |= {each.key for each in session.scalars(select(Checkpoint))}
        kept = session.scalars(select(Dataset).where(Dataset.deleted_at.is_(None)))
        keys |= {dataset_files.store_key(each) for each in kept}
    for file in resources.store.list_files():
        if not any(file.name == key or file.name.startswith(f"{key}/") for key in keys):
            yield f"{file.name} has no row"
    left = [*settings.work_dir.glob("jobs/*"), *settings.uploads_dir.glob("*/*")]
    left += list(settings.data_dir.rglob(".making-*"))
    left += list(settings.data_dir.rglob("*.tmp"))
    for path in left:
        yield f"{path.relative_to(settings.data_dir)} is left over"


INVARIANTS: tuple[Invariant, ...] = (
    database_is_intact,
    every_job_has_ended,
    attempts_are_consistent,
    each_job_has_one_result,
    curves_and_events_are_recorded_once,
    rows_have_their_files,
    aliases_point_to_stored_versions,
    labels_are_neither_lost_nor_doubled,
    sweeps_are_consistent,
    retrainings_have_ended,
    outbox_is_drained,
    no_request_is_half_done,
    nothing_is_left_over,
)
