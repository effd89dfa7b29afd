"""Queries of counted and of kept predictions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.database.base import min_uuid7_at, now, read_clock
from app.database.engines import acquire_transaction_lock
from app.traffic.tables import KeptPrediction, PredictionCount, PredictionOutcome

HOUR, DAY = 3600, 86_400  # seconds
HOURLY_DAYS = 14  # how long counts are by the hour; older ones are by the day
COUNT_DAYS = 400  # how long counts are kept
_DRAW_STEP_SECONDS = 1e-5  # a double still tells such times of this century apart
_NEWEST = 200_000  # predictions of a version among which different texts are searched
_FEW = 1000  # the newest ones of these, which usually have enough different texts
_NO_SYNC = {"synchronize_session": False}
_COLUMNS = [column.key for column in KeptPrediction.__table__.columns]


class PredictionCountKey(NamedTuple):
    """What is counted."""

    version: str
    outcome: PredictionOutcome
    label: str


class KeptPredictionKey(NamedTuple):
    """Names a kept prediction: the id of the request, and the position of the text in it."""

    prediction_id: UUID
    position: int


def format_prediction_id(key: KeptPredictionKey) -> str:
    """Return the name of the prediction for one text."""
    return f"{key.prediction_id.hex}-{key.position}"


def parse_request_id_and_position(text: str) -> tuple[UUID, int | None]:
    """Return the id of the request, and the position of the text if it is named."""
    id_, dash, position = text.partition("-")
    return UUID(hex=id_), int(position) if dash else None


# -- Counts --------------------------------------------------------------------------------------


_EXPIRED_COUNT = PredictionCount.start < now() - COUNT_DAYS * DAY


def add_counts(session: Session, counts: Mapping[PredictionCountKey, int]) -> None:
    """Add numbers of texts to the counts of the current hour."""
    acquire_transaction_lock(session, "prediction counts")
    start = int(read_clock(session)) // HOUR * HOUR
    for key, count in counts.items():
        model, _, number = key.version.rpartition(":")
        _add_count(
            session,
            {
                "model": model,
                "number": int(number),
                "start": start,
                "outcome": key.outcome,
                "label": key.label,
            },
            count,
        )


def _add_count(session: Session, key: Mapping[str, object], count: int) -> None:
    """Add to one count. The caller holds the lock."""
    updated = session.execute(
        update(PredictionCount)
        .where(*(getattr(PredictionCount, name) == value for name, value in key.items()))
        .values(count=PredictionCount.count + count)
        .returning(PredictionCount.count),
        execution_options=_NO_SYNC,
    ).all()
    if not updated:
        session.execute(insert(PredictionCount).values(**key, count=count))


def floor_count_start(at: float, start: float) -> float:
    """Return when the count that has the time `start` begins: with the hour or, if it may have been
    merged by the time `at`, with the day."""
    step = HOUR if at - start < HOURLY_DAYS * DAY else DAY
    return start // step * step


def count_outcomes(
    session: Session, *, model: str, since: float
) -> dict[tuple[int, PredictionOutcome, str], int]:
    """Return the predictions of a model since a time, by version number, outcome and label."""
    rows = session.execute(
        select(
            PredictionCount.number,
            PredictionCount.outcome,
            PredictionCount.label,
            func.sum(PredictionCount.count),
        )
        .where(PredictionCount.model == model, PredictionCount.start >= since)
        .group_by(PredictionCount.number, PredictionCount.outcome, PredictionCount.label)
    )
    return {
        (number, PredictionOutcome(outcome), label): int(n) for number, outcome, label, n in rows
    }


def abstention_share_by_version(session: Session, *, days: float) -> dict[tuple[str, int], float]:
    """Return the share of the texts of the last `days` that got no label, by (model, number)."""
    counts: dict[tuple[str, int], dict[str, int]] = {}
    rows = session.execute(
        select(
            PredictionCount.model,
            PredictionCount.number,
            PredictionCount.outcome,
            func.sum(PredictionCount.count),
        )
        .where(
            PredictionCount.start >= now() - days * DAY,
            PredictionCount.outcome != PredictionOutcome.LABEL,
        )
        .group_by(PredictionCount.model, PredictionCount.number, PredictionCount.outcome)
    )
    for model, number, outcome, count in rows:
        counts.setdefault((model, number), {})[outcome] = int(count)
    return {
        version: found.get(PredictionOutcome.ABSTAINED, 0) / found[PredictionOutcome.TEXT]
        for version, found in counts.items()
        if found.get(PredictionOutcome.TEXT)
    }


def merge_hourly_counts(session: Session, *, limit: int) -> int:
    """Merge one batch of hourly counts that are old into counts of the day. Return how many."""
    acquire_transaction_lock(session, "prediction counts")
    old = PredictionCount.start < now() - HOURLY_DAYS * DAY
    rows = session.execute(
        select(PredictionCount).where(old, PredictionCount.start % DAY != 0).limit(limit)
    ).scalars()
    merged = 0
    for row in rows.all():
        key = {
            "model": row.model,
            "number": row.number,
            "start": row.start // DAY * DAY,
            "outcome": row.outcome,
            "label": row.label,
        }
        _add_count(session, key, row.count)
        session.delete(row)
        merged += 1
    session.flush()
    return merged


def count_mergeable_hourly_counts(session: Session) -> int:
    """Return how many hourly counts `merge_hourly_counts` would merge."""
    old = PredictionCount.start < now() - HOURLY_DAYS * DAY
    statement = select(func.count()).select_from(PredictionCount)
    return session.scalars(statement.where(old, PredictionCount.start % DAY != 0)).one()


def count_expired_counts(session: Session) -> int:
    """Return how many counts are older than `COUNT_DAYS`."""
    statement = select(func.count()).select_from(PredictionCount)
    return session.scalars(statement.where(_EXPIRED_COUNT)).one()


def delete_expired_counts(session: Session, *, limit: int) -> int:
    """Delete one batch of counts that are older than `COUNT_DAYS`. Return how many."""
    rows = session.scalars(select(PredictionCount).where(_EXPIRED_COUNT).limit(limit)).all()
    for row in rows:
        session.delete(row)
    session.flush()
    return len(rows)


# -- Kept predictions ----------------------------------------------------------------------------


def add_predictions(session: Session, rows: Sequence[KeptPrediction]) -> None:
    """Insert rows, except for those of a transaction whose commit succeeded without an answer."""
    if rows:
        is_sqlite = session.get_bind().dialect.name == "sqlite"
        session.execute(
            sqlite.insert(KeptPrediction).on_conflict_do_nothing()
            if is_sqlite
            else postgresql.insert(KeptPrediction).on_conflict_do_nothing(),
            [
                {name: getattr(row, name) for name in _COLUMNS if name in row.__dict__}
                for row in rows
            ],
        )


def find_predictions_by_request(
    session: Session, prediction_ids: Iterable[UUID]
) -> dict[UUID, list[KeptPrediction]]:
    """Return the kept predictions of these requests, by position."""
    wanted = list(set(prediction_ids))
    found: dict[UUID, list[KeptPrediction]] = {}
    for start in range(0, len(wanted), 500):
        statement = select(KeptPrediction).where(
            KeptPrediction.prediction_id.in_(wanted[start : start + 500])
        )
        for row in session.scalars(statement.order_by(KeptPrediction.position)):
            found.setdefault(row.prediction_id, []).append(row)
    return found


def draw_review_sample(
    session: Session, *, model: str, number: int, count: int
) -> list[KeptPredictionKey]:
    """Draw kept predictions of a version that were not drawn yet, uniformly at random.

    Those without a label are left out. All keys of the version are read and given random numbers,
    which takes a second for some millions: no writer should have to wait for it.
    """
    if count == 0:
        return []
    rows = session.execute(
        select(KeptPrediction.prediction_id, KeptPrediction.position)
        .where(
            *_of_version(model, number),
            KeptPrediction.sampled_at.is_(None),
            KeptPrediction.abstained.is_(False),
        )
        .order_by(func.random())
        .limit(count)
    )
    return [KeptPredictionKey(*row) for row in rows]


def mark_review_sample(
    session: Session, keys: Sequence[KeptPredictionKey], *, count: int
) -> Sequence[KeptPrediction]:
    """Mark as drawn the first `count` of these that still exist and are not drawn. Return them.

    The order of the draw is kept, as that of `sampled_at`, so that a review that ends early leaves
    a random rest.
    """
    order = {key: index for index, key in enumerate(keys)}
    key = tuple_(KeptPrediction.prediction_id, KeptPrediction.position)
    undrawn = select(KeptPrediction).where(key.in_(keys), KeptPrediction.sampled_at.is_(None))
    # Locked, so that those that expire or are drawn at this moment are not there.
    rows = session.scalars(undrawn.with_for_update())
    drawn = sorted(rows, key=lambda row: order[KeptPredictionKey(row.prediction_id, row.position)])
    drawn = drawn[:count]
    at = read_clock(session)
    for index, row in enumerate(drawn):
        row.sampled_at = at + index * _DRAW_STEP_SECONDS
    session.flush()
    return drawn


def list_review_sample(
    session: Session, *, model: str, number: int, limit: int
) -> Sequence[KeptPrediction]:
    """Return the predictions that were drawn for reviews of a version, the first drawn first."""
    statement = select(KeptPrediction).where(
        *_of_version(model, number), KeptPrediction.sampled_at.is_not(None)
    )
    order = (
        KeptPrediction.sampled_at,
        KeptPrediction.prediction_id,
        KeptPrediction.position,
    )
    return session.scalars(statement.order_by(*order).limit(limit)).all()


class KeptPredictionCounts(NamedTuple):
    """How many predictions of a version are kept, how many were drawn, and since when."""

    number: int
    target: str | None  # the only one of several predicted
    kept: int
    sampled: int
    oldest: float  # Unix time


def count_kept_by_version(
    session: Session, *, model: str, since: float
) -> list[KeptPredictionCounts]:
    """Return these numbers for each version of a model that has any, by what was asked for."""
    rows = session.execute(
        select(
            KeptPrediction.number,
            KeptPrediction.target,
            func.count(),
            func.count(KeptPrediction.sampled_at),
            func.min(KeptPrediction.created_at),
        )
        .where(KeptPrediction.model == model, KeptPrediction.prediction_id >= min_uuid7_at(since))
        .group_by(KeptPrediction.number, KeptPrediction.target)
    )
    return [KeptPredictionCounts(*row) for row in rows]


def list_confidences(
    session: Session, *, model: str, number: int, since: float, limit: int
) -> dict[KeptPredictionKey, dict[str, float]]:
    """Return the model's own probabilities of its answers, newest first, by target."""
    rows = session.execute(
        select(
            KeptPrediction.prediction_id,
            KeptPrediction.position,
            KeptPrediction.confidence,
            KeptPrediction.target,
        )
        .where(
            *_of_version(model, number),
            KeptPrediction.prediction_id >= min_uuid7_at(since),
            KeptPrediction.abstained.is_(False),
        )
        .order_by(KeptPrediction.prediction_id.desc())
        .limit(limit)
    )
    found = {}
    for id_, position, confidence, target in rows:
        if target is not None and confidence:  # the only one of several that was predicted
            confidence = {target: confidence[""]}
        found[KeptPredictionKey(id_, position)] = confidence
    return found


class TimeWindow(NamedTuple):
    """A time: from `since` on, before `until`, in Unix time."""

    since: float
    until: float


class DrawnText(NamedTuple):
    """A predicted text, or a pair of texts."""

    key: KeptPredictionKey
    text: str
    text_pair: str | None


def count_distinct_texts(
    session: Session, *, model: str, number: int, window: TimeWindow, limit: int
) -> int:
    """Count the different texts of a version that are kept, up to `limit`.

    They are those of the newest `_NEWEST` predictions.
    """
    found = 0
    for newest in (_FEW, _NEWEST):
        rows = _newest_texts(model, number, window, newest).subquery()
        some = select(rows.c.text_hash).distinct().limit(limit).subquery()
        found = session.scalars(select(func.count()).select_from(some)).one()
        if found == limit:
            break
    return found


def draw_distinct_texts(
    session: Session, *, model: str, number: int, window: TimeWindow, count: int, characters: int
) -> list[DrawnText]:
    """Draw texts of a version uniformly at random, however often each was predicted.

    They are those of the newest `_NEWEST` predictions. Of each, the first `characters` are read.
    """
    rows = _newest_texts(model, number, window, _NEWEST).subquery()
    occurrence = func.row_number().over(
        partition_by=rows.c.text_hash, order_by=(rows.c.prediction_id, rows.c.position)
    )
    ranked = select(rows.c.prediction_id, rows.c.position, occurrence.label("n")).subquery()
    drawn = (
        select(ranked.c.prediction_id, ranked.c.position)
        .where(ranked.c.n == 1)
        .order_by(func.random())
        .limit(count)
        .subquery()
    )
    is_drawn = (KeptPrediction.prediction_id == drawn.c.prediction_id) & (
        KeptPrediction.position == drawn.c.position
    )
    found = session.execute(
        select(
            KeptPrediction.prediction_id,
            KeptPrediction.position,
            func.substr(KeptPrediction.text, 1, characters),
            func.substr(KeptPrediction.text_pair, 1, characters),
        ).join(drawn, is_drawn)
    )
    return [DrawnText(KeptPredictionKey(id_, position), *texts) for id_, position, *texts in found]


def _newest_texts(
    model: str, number: int, window: TimeWindow, count: int
) -> Select[UUID, int, str]:
    """Select id, position and hash of the newest texts."""
    return (
        select(KeptPrediction.prediction_id, KeptPrediction.position, KeptPrediction.text_hash)
        .where(*_with_text(model, number, window))
        .order_by(KeptPrediction.prediction_id.desc())
        .limit(count)
    )


def find_predictions_by_keys(
    session: Session, keys: Iterable[KeptPredictionKey]
) -> Sequence[KeptPrediction]:
    """Return those of the predictions that are still kept, in the order of the keys."""
    wanted = list(keys)
    found: dict[KeptPredictionKey, KeptPrediction] = {}
    for start in range(0, len(wanted), 500):
        statement = select(KeptPrediction).where(
            tuple_(KeptPrediction.prediction_id, KeptPrediction.position).in_(
                wanted[start : start + 500]
            )
        )
        for row in session.scalars(statement):
            found[KeptPredictionKey(row.prediction_id, row.position)] = row
    return [found[key] for key in wanted if key in found]


def delete_by_text_hashes(session: Session, hashes: Iterable[str]) -> int:
    """Delete the kept predictions of these texts, and of pairs with one of them."""
    deleted = session.execute(
        delete(KeptPrediction).where(_has_text(hashes)).returning(KeptPrediction.prediction_id),
        execution_options=_NO_SYNC,
    )
    return len(deleted.all())


def count_expired_predictions(session: Session, *, days: float) -> int:
    """Return how many kept predictions are older than this."""
    expired = _older_than(session, days)
    return session.scalars(select(func.count()).select_from(KeptPrediction).where(expired)).one()


def delete_expired_predictions(session: Session, *, days: float, limit: int) -> int:
    """Delete one batch of kept predictions that are older than this. Return how many."""
    key = tuple_(KeptPrediction.prediction_id, KeptPrediction.position)
    batch = (
        select(KeptPrediction.prediction_id, KeptPrediction.position)
        .where(_older_than(session, days))
        .limit(limit)
    )
    deleted = session.execute(
        delete(KeptPrediction).where(key.in_(batch)).returning(KeptPrediction.prediction_id),
        execution_options=_NO_SYNC,
    )
    return len(deleted.all())


def _older_than(session: Session, days: float) -> ColumnElement[bool]:
    return KeptPrediction.prediction_id < min_uuid7_at(read_clock(session) - days * DAY)


def _of_version(model: str, number: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return KeptPrediction.model == model, KeptPrediction.number == number


def _with_text(model: str, number: int, window: TimeWindow) -> tuple[ColumnElement[bool], ...]:
    return (
        *_of_version(model, number),
        KeptPrediction.prediction_id >= min_uuid7_at(window.since),
        KeptPrediction.prediction_id < min_uuid7_at(window.until),
        KeptPrediction.text.is_not(None),
    )


def _has_text(hashes: Iterable[str]) -> ColumnElement[bool]:
    wanted = list(set(hashes))
    return or_(
        KeptPrediction.text_hash.in_(wanted),
        KeptPrediction.first_hash.in_(wanted),
        KeptPrediction.second_hash.in_(wanted),
    )
