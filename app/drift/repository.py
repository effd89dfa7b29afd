"""Queries of drift checks."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.database.base import min_uuid7_at, now, read_clock
from app.drift.errors import DriftCheckNotFound
from app.drift.tables import DriftCheck, DriftClaim
from app.registry import repository as registry
from app.registry.tables import PRODUCTION

CHECK_DAYS = 400  # how long checks are kept
DAY = 86_400  # seconds
_NO_SYNC = {"synchronize_session": False}


def add_check(session: Session, check: DriftCheck) -> None:
    """Insert a check."""
    session.add(check)
    session.flush()


def find_newest_check(
    session: Session, *, model: str, number: int | None = None
) -> DriftCheck | None:
    """Return the newest check of a version or, without `number`, of any version of a model."""
    statement = select(DriftCheck).where(DriftCheck.model == model)
    if number is not None:
        statement = statement.where(DriftCheck.number == number)
    newest = statement.order_by(DriftCheck.window_end.desc(), DriftCheck.id.desc()).limit(1)
    return session.scalars(newest).one_or_none()


def list_checks(
    session: Session, *, model: str, number: int, after: UUID | None, limit: int
) -> Sequence[DriftCheck]:
    """Return the checks of a version, the newest first."""
    statement = select(DriftCheck).where(DriftCheck.model == model, DriftCheck.number == number)
    if after is not None:
        statement = statement.where(DriftCheck.id < after)
    return session.scalars(statement.order_by(DriftCheck.id.desc()).limit(limit)).all()


def get_check(session: Session, *, model: str, number: int, check_id: UUID) -> DriftCheck:
    """Return a check of a version. Raises `DriftCheckNotFound`."""
    found = session.get(DriftCheck, check_id)
    if found is None or (found.model, found.number) != (model, number):
        raise DriftCheckNotFound(version=f"{model}:{number}", check_id=check_id)
    return found


def list_newest_checks_in_production(session: Session) -> list[DriftCheck]:
    """Return the newest check of each version in production that has one."""
    newest = (
        find_newest_check(session, model=model, number=number)
        for model, number in registry.list_versions_with_alias(session, PRODUCTION)
    )
    return [check for check in newest if check is not None]


# -- Claims: which worker makes the next check ----------------------------------------------------


def find_claim(session: Session, model: str) -> DriftClaim | None:
    """Return until when workers leave the versions of a model alone, if they do."""
    return session.get(DriftClaim, model)


def upsert_claim(session: Session, claim: DriftClaim) -> None:
    """Insert the claim, or replace the one of the same model."""
    session.merge(claim)
    session.flush()


def delete_claim(session: Session, model: str, number: int) -> None:
    """Delete the claim on a version, if there is one."""
    claim = delete(DriftClaim).where(DriftClaim.model == model, DriftClaim.number == number)
    session.execute(claim, execution_options=_NO_SYNC)


def end_claims_expiring_later_than(session: Session, *, failed: bool, seconds: float) -> None:
    """End the claims that last longer than this: of checks that failed, or the others."""
    has_error = DriftClaim.error_code.is_not(None)
    session.execute(
        update(DriftClaim)
        .where(has_error if failed else ~has_error, DriftClaim.until > now() + seconds)
        .values(until=now()),
        execution_options=_NO_SYNC,
    )


# -- Retention ------------------------------------------------------------------------------------


def count_expired_checks(session: Session) -> int:
    """Return how many checks are older than `CHECK_DAYS`."""
    expired = DriftCheck.id < min_uuid7_at(read_clock(session) - CHECK_DAYS * DAY)
    return session.scalars(select(func.count()).select_from(DriftCheck).where(expired)).one()


def delete_expired_checks_and_claims(session: Session, *, limit: int) -> int:
    """Delete one batch of checks that are older than `CHECK_DAYS`, and old claims.

    Return how many checks.
    """
    session.execute(
        delete(DriftClaim).where(DriftClaim.until < now() - 7 * DAY), execution_options=_NO_SYNC
    )
    expired = DriftCheck.id < min_uuid7_at(read_clock(session) - CHECK_DAYS * DAY)
    ids = session.scalars(select(DriftCheck.id).where(expired).limit(limit)).all()
    session.execute(delete(DriftCheck).where(DriftCheck.id.in_(ids)), execution_options=_NO_SYNC)
    return len(ids)
