"""Rows of stored artifacts."""

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.storage.errors import ArtifactNotFound
from app.storage.store import ArtifactRef
from app.storage.tables import MODEL, Artifact


def add(session: Session, *, job_id: UUID | None, kind: str, ref: ArtifactRef) -> Artifact:
    """Make a stored directory count."""
    artifact = Artifact(
        job_id=job_id,
        kind=kind,
        key=ref.key,
        manifest_sha256=ref.manifest_sha256,
        bytes=ref.bytes,
    )
    session.add(artifact)
    session.flush()
    return artifact


def get(session: Session, artifact_id: UUID) -> Artifact:
    """Raises `ArtifactNotFound`."""
    artifact = session.get(Artifact, artifact_id)
    if artifact is None:
        raise ArtifactNotFound(artifact_id=artifact_id)
    return artifact


def by_job(session: Session, job_id: UUID) -> Artifact | None:
    """The model that a job made, the newest first."""
    made = (Artifact.job_id == job_id, Artifact.kind == MODEL)
    statement = select(Artifact).where(*made).order_by(Artifact.id.desc())
    return session.scalars(statement.limit(1)).first()


def remove_unused(session: Session, artifact_id: UUID) -> str | None:
    """Forget an artifact, unless a job or a model version still points at it.

    Returns the key of its files, which the caller deletes after its commit.
    """
    artifact = get(session, artifact_id)
    try:
        with session.begin_nested():
            session.execute(delete(Artifact).where(Artifact.id == artifact_id))
    except IntegrityError:
        return None
    return artifact.key
