"""Queries of artifacts, and deletion of those that are no longer referenced."""

from collections.abc import Iterable
from functools import partial
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, lazyload

from app.database.engines import acquire_transaction_lock, call_after_commit
from app.storage.errors import ArtifactNotFound
from app.storage.store import ArtifactRef, Store
from app.storage.tables import BASE_KIND, MODEL_KIND, Artifact


def add_artifact(
    session: Session,
    *,
    job_id: UUID | None,
    kind: str,
    ref: ArtifactRef,
    base: Artifact | None = None,
) -> Artifact:
    """Insert the row of a stored directory. Only a directory with a row is in use."""
    artifact = Artifact(
        job_id=job_id,
        kind=kind,
        key=ref.key,
        manifest_sha256=ref.manifest_sha256,
        bytes=ref.bytes,
        base=base,
    )
    session.add(artifact)
    session.flush()
    return artifact


def find_and_lock_base_artifact(session: Session, digest: str) -> Artifact | None:
    """Return the base with this digest, which cannot be deleted before the transaction ends."""
    bases = select(Artifact).options(lazyload(Artifact.base))
    found = bases.where(Artifact.kind == BASE_KIND, Artifact.manifest_sha256 == digest)
    return session.scalar(found.with_for_update(read=True, key_share=True))


def ensure_base_artifact(session: Session, ref: ArtifactRef) -> Artifact:
    """Return the base with this digest; insert its row if there is none."""
    acquire_transaction_lock(session, f"base {ref.manifest_sha256}")
    found = find_and_lock_base_artifact(session, ref.manifest_sha256)
    return found or add_artifact(session, job_id=None, kind=BASE_KIND, ref=ref)


def get_artifact(session: Session, artifact_id: UUID) -> Artifact:
    """Return the artifact. Raises `ArtifactNotFound`."""
    artifact = session.get(Artifact, artifact_id)
    if artifact is None:
        raise ArtifactNotFound(artifact_id=artifact_id)
    return artifact


def find_newest_model_of_job(session: Session, job_id: UUID) -> Artifact | None:
    """Return the newest model that the job made."""
    conditions = (Artifact.job_id == job_id, Artifact.kind == MODEL_KIND)
    statement = select(Artifact).where(*conditions).order_by(Artifact.id.desc())
    return session.scalars(statement.limit(1)).first()


def delete_unused_artifact_row(session: Session, artifact_id: UUID) -> str | None:
    """Delete an artifact's row, unless a job or a model version still refers to it.

    Returns the key of its files, which the caller must delete after the commit.
    """
    artifact = get_artifact(session, artifact_id)
    try:
        with session.begin_nested():
            session.execute(delete(Artifact).where(Artifact.id == artifact_id))
    except IntegrityError:
        return None
    return artifact.key


def delete_unused_artifacts(session: Session, store: Store, artifact_ids: Iterable[UUID]) -> None:
    """Delete the artifacts that no job or model version refers to, and their files after the
    commit."""
    for artifact_id in artifact_ids:
        if (key := delete_unused_artifact_row(session, artifact_id)) is not None:
            call_after_commit(session, partial(store.delete_best_effort, key))
