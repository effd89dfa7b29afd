"""Queries of forgotten texts."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.engines import acquire_transaction_lock
from app.privacy.tables import ForgottenTextHash

_HASHES_PER_QUERY = 500


def lock_text_storage(session: Session) -> None:
    """Acquire the lock of all that stores or forgets texts, until the end of the transaction.

    Without it, a text could be stored by a transaction that does not see yet that it was forgotten.
    """
    acquire_transaction_lock(session, "texts")


def add_forgotten_hashes(session: Session, hashes: Iterable[str]) -> None:
    """Remember that these texts are forgotten. The caller holds the lock."""
    wanted = set(hashes)
    session.add_all(
        ForgottenTextHash(text_hash=each)
        for each in wanted - find_forgotten_hashes(session, wanted)
    )
    session.flush()


def find_forgotten_hashes(session: Session, hashes: Iterable[str]) -> set[str]:
    """Return those of these hashes whose text must not be stored."""
    wanted = list(set(hashes))
    found: set[str] = set()
    for start in range(0, len(wanted), _HASHES_PER_QUERY):
        batch = wanted[start : start + _HASHES_PER_QUERY]
        in_batch = ForgottenTextHash.text_hash.in_(batch)
        found.update(session.scalars(select(ForgottenTextHash.text_hash).where(in_batch)))
    return found


def list_forgotten_hashes(session: Session) -> frozenset[str]:
    """Return the hashes of all texts that must not be stored."""
    return frozenset(session.scalars(select(ForgottenTextHash.text_hash)))
