"""Operations on drift: compare the texts of a version with its training texts, and report it."""

from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.base import JsonObject, read_clock
from app.database.engines import Database, acquire_transaction_lock, call_after_commit
from app.drift import repository
from app.drift.errors import DriftTextsNotKept, TooFewDriftTexts, TooFewTrainingTexts
from app.drift.label_shares import read_label_shares
from app.drift.schemas import DriftCheckDetail, DriftState, DriftView
from app.drift.tables import DriftCheck
from app.drift.training_data import get_training_data
from app.drift.views import drift_check_failure_view, drift_check_view, drift_check_with_texts_view
from app.errors import AppError
from app.outbox import repository as outbox
from app.outbox.enums import EventType
from app.registry import service as registry
from app.registry.service import ResolvedModel
from app.settings import Settings
from app.storage.store import Store
from app.traffic import repository as traffic
from app.traffic.repository import (
    DrawnText,
    KeptPredictionKey,
    TimeWindow,
    format_prediction_id,
    parse_request_id_and_position,
)
from lora_core.specs.drift import MAX_CHARACTERS, MAX_TEXTS, MIN_TEXTS, DriftReport, RecentText


def create_drift_check(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    ref: str,
    automatic: bool = False,
    flush_traffic: Callable[[], None] | None = None,
) -> DriftCheck:
    """Compare what a version predicted since its last check with its training texts.

    If another process has checked the same texts meanwhile, its check is returned.

    Raises `DriftTextsNotKept`, `TooFewDriftTexts`, `TooFewTrainingTexts`, and what
    `registry.resolve_model`, `get_training_data`, `fetch_dataset_file` and
    `FileInspector.detect_drift` raise.
    """
    if flush_traffic is not None:
        flush_traffic()
    with database.read() as session:
        resolved = registry.resolve_model(session, ref)
        data = get_training_data(session, resolved)
        window = next_window(session, resolved)
        recent = traffic.draw_distinct_texts(
            session,
            model=resolved.name,
            number=resolved.number,
            window=window,
            count=MAX_TEXTS,
            characters=2 * MAX_CHARACTERS,  # white space at the start is not compared
        )
    few = TooFewDriftTexts if settings.keep_traffic == "texts" else DriftTextsNotKept
    if len(recent) < MIN_TEXTS:
        raise few(version=resolved.ref, texts=len(recent), needed=MIN_TEXTS)
    report = data.build_file_inspector(store, settings).detect_drift(
        RecentText(text=each.text, text_pair=each.text_pair) for each in recent
    )
    if report.recent_texts < MIN_TEXTS:  # others differ only where they are not compared
        raise few(version=resolved.ref, texts=report.recent_texts, needed=MIN_TEXTS)
    if report.p_value is None:
        raise TooFewTrainingTexts(
            version=resolved.ref, texts=report.training_texts, needed=MIN_TEXTS
        )
    check = _new_check(resolved, window, recent, report, settings.drift_level)
    check.automatic = automatic
    with database.write() as session:
        return _save(session, check)


def next_window(session: Session, resolved: ResolvedModel) -> TimeWindow:
    """Return the time of the next check of a version: from the end of its last one to now."""
    newest = repository.find_newest_check(session, model=resolved.name, number=resolved.number)
    return TimeWindow(newest.window_end if newest else 0.0, read_clock(session))


def _new_check(
    resolved: ResolvedModel,
    window: TimeWindow,
    recent: Sequence[DrawnText],
    report: DriftReport,
    level: float,
) -> DriftCheck:
    assert report.p_value is not None  # noqa: S101 - there were enough texts
    assert report.auc is not None  # noqa: S101
    different = [recent[position].key for position in report.most_different]
    return DriftCheck(
        model=resolved.name,
        number=resolved.number,
        window_start=window.since,
        window_end=window.until,
        training_texts=report.training_texts,
        recent_texts=report.recent_texts,
        p_value=report.p_value,
        auc=report.auc,
        level=level,
        alarm=report.p_value <= level,
        most_different=[format_prediction_id(each) for each in different],
    )


def _save(session: Session, check: DriftCheck) -> DriftCheck:
    """Insert a check with its event, unless another one has its texts; return the stored one."""
    acquire_transaction_lock(session, f"drift of {check.model}")
    newest = repository.find_newest_check(session, model=check.model, number=check.number)
    if newest is not None and newest.window_end > check.window_start:
        return newest
    previous = repository.find_newest_check(session, model=check.model)
    repository.add_check(session, check)
    repository.delete_claim(session, check.model, check.number)
    known = previous is not None and previous.alarm and previous.number == check.number
    if check.alarm and not known:
        outbox.publish_event(session, EventType.DRIFT_DETECTED, _event(check))
    call_after_commit(
        session,
        partial(
            logging.write_audit_line,
            "drift_checked",
            model=check.version_ref,
            alarm=check.alarm,
            automatic=check.automatic,
        ),
    )
    return check


def _event(check: DriftCheck) -> JsonObject:
    return {
        "id": str(check.id),
        "name": check.model,
        "version": check.number,
        "p_value": check.p_value,
        "auc": check.auc,
        "level": check.level,
        "recent_texts": check.recent_texts,
    }


# -- What is known --------------------------------------------------------------------------------


def get_drift(session: Session, *, settings: Settings, ref: str, days: float) -> DriftView:
    """Return what is known about the texts of a version.

    Raises what `registry.resolve_model` raises.
    """
    resolved = registry.resolve_model(session, ref)
    model, number = resolved.name, resolved.number
    newest = repository.find_newest_check(session, model=model, number=number)
    claim = repository.find_claim(session, model)
    try:
        training = get_training_data(session, resolved).label_shares()
    except AppError:  # the shares of predictions are known all the same
        training = None
    shares = read_label_shares(session, model=model, number=number, days=days, training=training)
    new_texts = traffic.count_distinct_texts(
        session,
        model=model,
        number=number,
        window=next_window(session, resolved),
        limit=MIN_TEXTS,
    )
    return DriftView(
        version=resolved.ref,
        state=_state(newest, settings, new_texts),
        new_texts=new_texts,
        needed_texts=MIN_TEXTS,
        newest_check=None if newest is None else drift_check_view(newest),
        problem=drift_check_failure_view(claim if claim and claim.number == number else None),
        days=days,
        predicted=shares.predicted,
        predicted_before=shares.predicted_before,
        abstained=shares.abstained,
        labels=shares.labels,
    )


def _state(newest: DriftCheck | None, settings: Settings, new_texts: int) -> DriftState:
    if newest is not None:
        return DriftState.DRIFT if newest.alarm else DriftState.NO_DRIFT
    if settings.keep_traffic != "texts" and not new_texts:
        return DriftState.NOT_KEPT
    return DriftState.TOO_FEW_TEXTS


def get_check(session: Session, *, ref: str, check_id: UUID) -> DriftCheckDetail:
    """Return a check with its most different texts, as far as they are still kept.

    Raises `DriftCheckNotFound`, and what `registry.resolve_model` raises.
    """
    resolved = registry.resolve_model(session, ref)
    check = repository.get_check(
        session, model=resolved.name, number=resolved.number, check_id=check_id
    )
    keys = [
        KeptPredictionKey(id_, position or 0)
        for id_, position in map(parse_request_id_and_position, check.most_different)
    ]
    return drift_check_with_texts_view(check, traffic.find_predictions_by_keys(session, keys))
