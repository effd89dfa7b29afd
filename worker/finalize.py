"""The last transaction of an attempt. It must not be lost to a busy database, so it insists."""

from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.base import JsonObject
from app.jobs.results import comparison
from app.queue import leases
from app.queue.fencing import Claimed, Lease
from app.queue.transitions import Ending, ExitStatus, Succeeded
from app.registry import service as registry
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import FIGURES, MODEL
from lora_core import manifest
from worker.db_retry import Contact
from worker.inputs import Inputs
from worker.job_kinds import WORK

log = structlog.get_logger(__name__)


def finish(
    resources: Resources, lease: Lease, ending: Ending, left: ExitStatus | None = None
) -> None:
    """End an attempt that made nothing, unless it is fenced."""
    if _insist(resources, lease, lambda session: leases.finish(session, lease, ending, left)):
        log.info("the attempt ended", ending=type(ending).__name__)


def publish(resources: Resources, claimed: Claimed, made: Path, inputs: Inputs) -> None:
    """Store what was made and end the attempt. If it is fenced, nothing is published.

    Files first, then one transaction of artifact, version and ending: only rows make files count.
    Files without one are swept up later, not here: a connection that broke in its commit leaves
    open whether the row is there.
    Raises `ArtifactCorrupt` if the directory does not match its manifest.
    """
    lease = claimed.lease
    facts = manifest.read(made)
    if inputs.names:  # the paths of this machine are nobody's business
        facts = {**inputs.public(facts), "files": facts["files"]}
        manifest.save(made, facts)
    shelf = WORK[claimed.kind].shelf
    ref = resources.store.put(made, f"{shelf}/{lease.job_id}/a{lease.attempt}")
    if _insist(resources, lease, lambda session: _succeed(session, claimed, ref, facts)):
        log.info("the attempt succeeded")
        if claimed.promote_to is not None:
            logging.note("alias_moved", job_id=str(lease.job_id), alias=claimed.promote_to)


def _succeed(session: Session, claimed: Claimed, ref: ArtifactRef, facts: JsonObject) -> bool:
    lease = claimed.lease
    kind = WORK[claimed.kind].artifact
    if kind == MODEL and not manifest.holds_model(facts):
        kind = FIGURES
    artifact = artifacts.add(session, job_id=lease.job_id, kind=kind, ref=ref)
    comparison.keep(session, lease.job_id, facts.get("graded", {}))
    summary = facts["metrics"]
    if (name := claimed.register_as) is not None:
        version = registry.register(session, name=name, artifact=artifact, facts=facts)
        if claimed.promote_to is not None:
            registry.promote(session, version, alias=claimed.promote_to)
        summary = {**summary, "model_version": f"{name}:{version.number}"}
    return leases.finish(session, lease, Succeeded(artifact.id, summary), ExitStatus(code=0))


def _insist(resources: Resources, lease: Lease, write: Callable[[Session], bool]) -> bool:
    """Commit what `write` agrees to. `False`: fenced. So long as the database is away, no one else
    can take the job.
    """

    def commit() -> bool:
        with resources.database.write() as session:
            if not write(session):
                return _was_ours(session, lease)
            session.commit()
            return True

    return Contact(log).insist(commit)


def _was_ours(session: Session, lease: Lease) -> bool:
    """Whether an earlier try, of which no answer came, had ended the attempt after all."""
    if leases.ended(session, lease):
        return True
    log.warning("fenced: the job is in other hands")
    return False
