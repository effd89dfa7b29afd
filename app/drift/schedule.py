"""Automatic checks of the versions in production. Any number of processes may make them.

A version is due when `LORAWORKS_DRIFT_DAYS` have passed since its last check and enough new texts
are kept. A claim keeps other processes from computing the same check. If its owner dies, the claim
expires. If the check fails, the claim is extended and keeps the error.
"""

import structlog
from sqlalchemy.orm import Session

from app.database.base import read_clock
from app.database.engines import Database, acquire_transaction_lock
from app.drift import repository, service
from app.drift.errors import DriftTextsNotKept, TooFewDriftTexts
from app.drift.tables import DriftClaim
from app.errors import AppError, NotFound, ServiceUnavailable
from app.registry import service as registry
from app.registry.service import ResolvedModel
from app.registry.tables import PRODUCTION
from app.resources import Resources
from app.settings import Settings
from app.traffic import repository as traffic
from lora_core.errors import LoraCoreError
from lora_core.failpoints import failpoint
from lora_core.specs.drift import MIN_TEXTS

MIN_CLAIM_SECONDS = 600.0
FEW_TEXTS_SECONDS = 3600.0  # until texts are counted again that were mostly the same
RETRY_SECONDS = 86_400.0  # after a failure

log = structlog.get_logger(__name__)


def run_next_due_check(resources: Resources) -> bool:
    """Check one version that is due. Return whether there was one.

    Raises database errors. The claim keeps the version from being tried again at once then.
    """
    database, settings = resources.database, resources.settings
    with database.read() as session:
        due = _find_due(session, settings)
    if due is None:
        return False
    with database.write() as session:
        acquire_transaction_lock(session, f"drift of {due.name}")
        if not _is_due(session, due, settings):  # another process was faster
            return True
        _claim(session, due, _claim_seconds(settings))
    failpoint("drift_claimed")
    try:
        service.create_drift_check(
            database, resources.store, settings=settings, ref=due.ref, automatic=True
        )
    except ServiceUnavailable as error:  # the claim will expire
        log.warning("drift check postponed", model=due.ref, reason=str(error))
    except (DriftTextsNotKept, TooFewDriftTexts, NotFound):  # many were the same, or it is gone
        _extend(database, due, FEW_TEXTS_SECONDS)
    except (AppError, LoraCoreError) as error:
        log.warning("drift check failed", model=due.ref, code=error.code, reason=str(error))
        _extend(database, due, RETRY_SECONDS, error)
    return True


def end_claims_after_clock_step(session: Session, settings: Settings) -> None:
    """End the claims that last longer than any would: after a clock step, hours longer."""
    seconds = max(_claim_seconds(settings), FEW_TEXTS_SECONDS)
    repository.end_claims_expiring_later_than(session, failed=False, seconds=seconds)
    repository.end_claims_expiring_later_than(session, failed=True, seconds=RETRY_SECONDS)


def _claim_seconds(settings: Settings) -> float:
    return max(MIN_CLAIM_SECONDS, 2 * settings.inspect_seconds)


def _find_due(session: Session, settings: Settings) -> ResolvedModel | None:
    for resolved in registry.resolve_all_with_alias(session, PRODUCTION):
        if _is_due(session, resolved, settings):
            return resolved
    return None


def _is_due(session: Session, resolved: ResolvedModel, settings: Settings) -> bool:
    window = service.next_window(session, resolved)
    claim = repository.find_claim(session, resolved.name)
    if claim is not None and claim.number == resolved.number and claim.until > window.until:
        return False
    if window.until - window.since < settings.drift_days * traffic.DAY:
        return False
    texts = traffic.count_distinct_texts(
        session,
        model=resolved.name,
        number=resolved.number,
        window=window,
        limit=MIN_TEXTS,
    )
    return texts >= MIN_TEXTS


def _extend(
    database: Database,
    resolved: ResolvedModel,
    seconds: float,
    error: AppError | LoraCoreError | None = None,
) -> None:
    """Extend the claim on a version, unless it was checked meanwhile or another one is claimed."""
    with database.write() as session:
        acquire_transaction_lock(session, f"drift of {resolved.name}")
        claim = repository.find_claim(session, resolved.name)
        if claim is not None and claim.number == resolved.number:
            _claim(session, resolved, seconds, error)


def _claim(
    session: Session,
    resolved: ResolvedModel,
    seconds: float,
    error: AppError | LoraCoreError | None = None,
) -> None:
    repository.upsert_claim(
        session,
        DriftClaim(
            model=resolved.name,
            number=resolved.number,
            until=read_clock(session) + seconds,
            error_code=error.code if error else None,
            error_message=str(error) if error else None,
        ),
    )
