"""Queries of feedback."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, or_, select, tuple_, update
from sqlalchemy.orm import Session, defer

from app.database.base import now
from app.feedback.errors import FeedbackNotFound
from app.feedback.tables import Feedback
from app.traffic.repository import DAY, KeptPredictionKey
from app.traffic.tables import KeptPrediction

_NO_SYNC = {"synchronize_session": False}
_KEYS_PER_QUERY = 500


class VersionTarget(NamedTuple):
    """What has a live accuracy: a target of a version, empty if it has one only."""

    model: str
    number: int
    target: str


class FeedbackKey(NamedTuple):
    """What there is one row for: an author says one thing about a target of a text."""

    model: str
    target: str
    author: str
    subject: str


def find_feedback_by_keys(
    session: Session, keys: Iterable[FeedbackKey]
) -> dict[FeedbackKey, Feedback]:
    """Return the rows with these keys."""
    wanted = set(keys)
    subjects = list({key.subject for key in wanted})
    found = {}
    for start in range(0, len(subjects), _KEYS_PER_QUERY):
        statement = select(Feedback).where(
            Feedback.subject.in_(subjects[start : start + _KEYS_PER_QUERY]),
            Feedback.model.in_({key.model for key in wanted}),
        )
        for row in session.scalars(statement):
            key = FeedbackKey(row.model, row.target, row.author, row.subject)
            if key in wanted:
                found[key] = row
    return found


def get_feedback(session: Session, feedback_id: UUID) -> Feedback:
    """Raises `FeedbackNotFound`."""
    row = session.get(Feedback, feedback_id)
    if row is None:
        raise FeedbackNotFound(feedback_id=feedback_id)
    return row


def list_feedback(
    session: Session, *, model: str, after: UUID | None, limit: int, sampled: bool | None = None
) -> Sequence[Feedback]:
    """Return feedback on a model, the newest first."""
    statement = select(Feedback).where(Feedback.model == model)
    if sampled is not None:
        statement = statement.where(Feedback.sampled.is_(sampled))
    if after is not None:
        statement = statement.where(Feedback.id < after)
    return session.scalars(statement.order_by(Feedback.id.desc()).limit(limit)).all()


def list_newest_per_target_and_subject(
    session: Session,
    *,
    model: str,
    since: float = 0.0,
    with_texts: bool = True,
) -> Sequence[Feedback]:
    """Return feedback on a model, of several authors on the same text only the newest.

    `since`: only if the text was predicted after this time or, if that is unknown, labeled.
    `with_texts` False: texts, which may be long, are not read.
    """
    newest_first = (Feedback.updated_at.desc(), Feedback.id.desc())
    rank = func.row_number().over(
        partition_by=(Feedback.target, Feedback.subject), order_by=newest_first
    )
    ranked = select(Feedback.id, rank.label("rank")).where(Feedback.model == model).subquery()
    statement = (
        select(Feedback)
        .join(ranked, ranked.c.id == Feedback.id)
        .where(
            ranked.c.rank == 1, func.coalesce(Feedback.predicted_at, Feedback.updated_at) >= since
        )
    )
    if not with_texts:
        texts = (Feedback.text, Feedback.text_pair)
        statement = statement.options(*(defer(each, raiseload=True) for each in texts))
    return session.scalars(statement.order_by(Feedback.id)).all()


def list_newest_with_text(session: Session, *, model: str, limit: int) -> Sequence[Feedback]:
    """Return the newest feedback on a model whose text is known, the oldest of it first."""
    statement = (
        select(Feedback)
        .where(Feedback.model == model, Feedback.text.is_not(None))
        .order_by(Feedback.updated_at.desc(), Feedback.id.desc())
        .limit(limit)
    )
    return session.scalars(statement).all()[::-1]


def count_texts_with_new_feedback(session: Session, *, model: str, since: float) -> int:
    """Return how many known texts of a model have feedback that is newer than this time."""
    statement = select(func.count(Feedback.text_hash.distinct())).where(
        Feedback.model == model, Feedback.text.is_not(None), Feedback.updated_at > since
    )
    return session.scalars(statement).one()


def labeled_targets_by_prediction(
    session: Session, keys: Sequence[KeptPredictionKey]
) -> dict[KeptPredictionKey, set[str]]:
    """Return the targets of these predictions that have feedback, by prediction."""
    wanted, found = set(keys), dict[KeptPredictionKey, set[str]]()
    ids = list({key.prediction_id for key in keys})
    for start in range(0, len(ids), _KEYS_PER_QUERY):
        statement = select(Feedback.prediction_id, Feedback.position, Feedback.target).where(
            Feedback.prediction_id.in_(ids[start : start + _KEYS_PER_QUERY])
        )
        for prediction_id, position, target in session.execute(statement):
            if prediction_id is not None and position is not None:
                key = KeptPredictionKey(prediction_id, position)
                if key in wanted:
                    found.setdefault(key, set()).add(target)
    return found


def has_unlabeled_samples(session: Session, part: VersionTarget) -> bool:
    """Return whether predictions that were drawn for reviews lack feedback on a target."""
    labeled = (
        select(Feedback.id)
        .where(
            Feedback.prediction_id == KeptPrediction.prediction_id,
            Feedback.position == KeptPrediction.position,
            Feedback.target == part.target,
        )
        .exists()
    )
    statement = select(KeptPrediction.position).where(
        *_drawn(part),
        or_(KeptPrediction.target.is_(None), KeptPrediction.target == part.target),
        ~labeled,
    )
    return session.execute(statement.limit(1)).first() is not None


def mark_feedback_sampled(session: Session, part: VersionTarget, *, drawn_until: float) -> None:
    """Mark the feedback on predictions that were drawn up to this time."""
    drawn = select(KeptPrediction.prediction_id, KeptPrediction.position).where(
        *_drawn(part), KeptPrediction.sampled_at <= drawn_until
    )
    session.execute(
        update(Feedback)
        .where(
            Feedback.model == part.model,
            Feedback.number == part.number,
            Feedback.target == part.target,
            Feedback.sampled.is_(False),
            tuple_(Feedback.prediction_id, Feedback.position).in_(drawn),
        )
        .values(sampled=True),
        execution_options=_NO_SYNC,
    )


def _drawn(part: VersionTarget) -> tuple[ColumnElement[bool], ...]:
    return (
        KeptPrediction.model == part.model,
        KeptPrediction.number == part.number,
        KeptPrediction.sampled_at.is_not(None),
    )


def delete_feedback(session: Session, row: Feedback) -> None:
    """Delete a row."""
    session.delete(row)
    session.flush()


def delete_by_text_hashes(session: Session, hashes: Iterable[str]) -> int:
    """Delete the feedback on these texts, and on pairs with one of them."""
    wanted = list(set(hashes))
    of_texts = or_(
        Feedback.text_hash.in_(wanted),
        Feedback.first_hash.in_(wanted),
        Feedback.second_hash.in_(wanted),
    )
    deleted = session.execute(
        delete(Feedback).where(of_texts).returning(Feedback.id), execution_options=_NO_SYNC
    )
    return len(deleted.all())


def list_feedback_on_prediction(session: Session, prediction_id: UUID) -> Sequence[Feedback]:
    """Return the feedback on the texts of a prediction."""
    statement = select(Feedback).where(Feedback.prediction_id == prediction_id)
    return session.scalars(statement).all()


def count_expired_feedback(session: Session, *, days: float) -> int:
    """Return how much feedback has not changed for this long."""
    return session.scalars(select(func.count()).select_from(Feedback).where(_expired(days))).one()


def delete_expired_feedback(session: Session, *, days: float, limit: int) -> int:
    """Delete one batch of feedback that has not changed for this long. Return how much."""
    batch = select(Feedback.id).where(_expired(days)).limit(limit)
    deleted = session.execute(
        delete(Feedback).where(Feedback.id.in_(batch)).returning(Feedback.id),
        execution_options=_NO_SYNC,
    )
    return len(deleted.all())


def _expired(days: float) -> ColumnElement[bool]:
    return Feedback.updated_at < now() - days * DAY
