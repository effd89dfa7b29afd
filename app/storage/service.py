"""Artifacts that nothing may need any more."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.orm import Session

from app.storage import repository
from app.storage.store import Store


def forget_unused(session: Session, store: Store, artifact_ids: Iterable[UUID]) -> None:
    """Commit, and delete the files of those at which no job or model version points any more."""
    keys = [repository.remove_unused(session, artifact_id) for artifact_id in artifact_ids]
    session.commit()
    for key in keys:
        if key is not None:
            store.discard(key)
