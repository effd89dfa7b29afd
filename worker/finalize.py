"""The last transaction of an attempt.

An outage of the database must not cost a job its result, so the transaction is retried.
"""

from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs.results import comparison
from app.queue import leases
from app.queue.fencing import ClaimedJob, Lease, LeaseLost
from app.queue.transitions import AttemptResult, ProcessExitStatus, Succeeded
from app.registry import service as registry
from app.resources import Resources
from app.storage.staged_artifact import StagedArtifact
from app.storage.tables import METRICS_KIND, MODEL_KIND
from lora_core import manifest
from worker.failures import LEASE_LOST_MESSAGE
from worker.inputs import JOB_KINDS, LocalInputs
from worker.outages import OutageTracker

log = structlog.get_logger(__name__)


def finish_attempt_without_artifact(
    resources: Resources,
    lease: Lease,
    result: AttemptResult,
    exit_status: ProcessExitStatus | None = None,
) -> None:
    """Finish an attempt that produced no artifact, unless its lease is lost."""
    if _commit_with_retry(
        resources, lease, lambda session: leases.finish_attempt(session, lease, result, exit_status)
    ):
        log.info("attempt finished", result=type(result).__name__)


def publish_artifact_and_finish_attempt(
    resources: Resources, claimed: ClaimedJob, output_dir: Path, inputs: LocalInputs
) -> None:
    """Store the output and finish the attempt. If its lease is lost, nothing is published.

    Files are stored first, those of a base only if it is new; then one transaction writes artifact,
    version, and result. Files without a row do not count. They are removed later by garbage
    collection, not here: after a connection lost during the commit, it is unknown whether the row
    exists. Raises `ArtifactCorrupt` if the directory does not match its manifest.
    """
    lease = claimed.lease
    manifest_data = manifest.read(output_dir)
    if inputs.public_names:  # do not publish paths of this machine
        manifest_data = {
            **inputs.replace_local_paths(manifest_data),
            "files": manifest_data["files"],
        }
        manifest.save(output_dir, manifest_data)
    key = f"{JOB_KINDS[claimed.kind].key_prefix}/{lease.job_id}/a{lease.attempt}"
    artifact = StagedArtifact(resources.store, output_dir, key)
    if artifact.retry_after_storing_base(
        lambda: _commit_with_retry(
            resources, lease, lambda session: _succeed(session, claimed, artifact, manifest_data)
        )
    ):
        log.info("attempt succeeded")


def _succeed(
    session: Session, claimed: ClaimedJob, new: StagedArtifact, manifest_data: JsonObject
) -> None:
    lease = claimed.lease
    kind = JOB_KINDS[claimed.kind].artifact_kind
    if kind == MODEL_KIND and not manifest.has_model(manifest_data):
        kind = METRICS_KIND
    artifact = new.add_row(session, job_id=lease.job_id, kind=kind)
    comparison.store_correctness(session, lease.job_id, manifest_data.get("correctness", {}))
    summary = manifest_data["metrics"]
    if (name := claimed.register_as) is not None:
        version = registry.add_version(
            session, name=name, artifact=artifact, manifest=manifest_data
        )
        if claimed.promote_to is not None:
            registry.point_alias_and_publish(
                session, version, alias=claimed.promote_to, job_id=str(lease.job_id)
            )
        summary = {**summary, "model_version": f"{name}:{version.number}"}
    leases.finish_attempt(
        session, lease, Succeeded(artifact.id, summary), ProcessExitStatus(code=0)
    )


def _commit_with_retry(
    resources: Resources, lease: Lease, write: Callable[[Session], None]
) -> bool:
    """Commit what `write` does, retrying during outages. Return whether this attempt ended.

    It has not if `write` raises `LeaseLost`, unless an earlier commit whose answer was lost did it.
    While the database is unreachable, no other worker can claim the job.
    """

    def commit() -> bool:
        try:
            with resources.database.write() as session:
                write(session)
        except LeaseLost:
            return _already_finished(resources, lease)
        return True

    return OutageTracker(log).retry(commit)


def _already_finished(resources: Resources, lease: Lease) -> bool:
    """Return whether an earlier commit without a response had finished the attempt after all."""
    with resources.database.read() as session:
        if leases.has_worker_ended_attempt(session, lease):
            return True
    log.warning(LEASE_LOST_MESSAGE)
    return False
