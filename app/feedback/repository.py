"""Queries of feedback."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.database.base import now
from app.feedback.errors import FeedbackNotFound
from app.feedback.tables import Feedback
from app.traffic.repository import DAY, TextKey

_NO_SYNC = {"synchronize_session": False}
_KEYS_PER_QUERY = 500


class FeedbackKey(NamedTuple):
    """What there is one row for: an author says one thing about a target of a text."""

    model: str
    target: str
    author: str
    subject: str


def find_feedback(session: Session, keys: Iterable[FeedbackKey]) -> dict[FeedbackKey, Feedback]:
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


def list_newest(
    session: Session, *, model: str, number: int | None = None, since: float = 0.0
) -> Sequence[Feedback]:
    """Return feedback on a model, of several authors on the same text only the newest.

    `since`: only if the text was predicted after this time or, if that is unknown, labeled.
    """
    later = aliased(Feedback)
    is_newest = ~(
        select(later.id)
        .where(
            later.model == Feedback.model,
            later.target == Feedback.target,
            later.subject == Feedback.subject,
            or_(
                later.updated_at > Feedback.updated_at,
                and_(later.updated_at == Feedback.updated_at, later.id > Feedback.id),
            ),
        )
        .exists()
    )
    statement = select(Feedback).where(
        Feedback.model == model,
        is_newest,
        func.coalesce(Feedback.predicted_at, Feedback.updated_at) >= since,
    )
    if number is not None:
        statement = statement.where(Feedback.number == number)
    return session.scalars(statement.order_by(Feedback.id)).all()


def list_with_texts(session: Session, *, model: str, limit: int) -> Sequence[Feedback]:
    """Return the newest feedback on a model whose text is known, the oldest of it first."""
    statement = (
        select(Feedback)
        .where(Feedback.model == model, Feedback.text.is_not(None))
        .order_by(Feedback.updated_at.desc(), Feedback.id.desc())
        .limit(limit)
    )
    return session.scalars(statement).all()[::-1]


def count_new_texts(session: Session, *, model: str, since: float) -> int:
    """Return how many known texts of a model have feedback that is newer than this time."""
    statement = select(func.count(Feedback.text_hash.distinct())).where(
        Feedback.model == model, Feedback.text.is_not(None), Feedback.updated_at > since
    )
    return session.scalars(statement).one()


def labeled_targets(session: Session, keys: Sequence[TextKey]) -> dict[TextKey, set[str]]:
    """Return the targets of these predictions that have feedback, by prediction."""
    wanted, found = set(keys), dict[TextKey, set[str]]()
    ids = list({key.prediction_id for key in keys})
    for start in range(0, len(ids), _KEYS_PER_QUERY):
        statement = select(Feedback.prediction_id, Feedback.position, Feedback.target).where(
            Feedback.prediction_id.in_(ids[start : start + _KEYS_PER_QUERY])
        )
        for prediction_id, position, target in session.execute(statement):
            if prediction_id is not None and position is not None:
                key = TextKey(prediction_id, position)
                if key in wanted:
                    found.setdefault(key, set()).add(target)
    return found


def mark_sampled(session: Session, keys: Iterable[TextKey]) -> None:
    """Mark the feedback on predictions that were drawn for a review."""
    for key in keys:
        session.execute(
            update(Feedback)
            .where(Feedback.prediction_id == key.prediction_id, Feedback.position == key.position)
            .values(sampled=True),
            execution_options=_NO_SYNC,
        )


def delete_feedback(session: Session, row: Feedback) -> None:
    """Delete a row."""
    session.delete(row)
    session.flush()


def delete_texts(session: Session, hashes: Iterable[str]) -> int:
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


def find_of_prediction(session: Session, key: TextKey) -> Feedback | None:
    """Return any feedback on a prediction."""
    statement = select(Feedback).where(
        Feedback.prediction_id == key.prediction_id, Feedback.position == key.position
    )
    return session.scalars(statement.limit(1)).first()


def count_expired(session: Session, *, days: float) -> int:
    """Return how much feedback has not changed for this long."""
    return session.scalars(select(func.count()).select_from(Feedback).where(_expired(days))).one()


def delete_expired(session: Session, *, days: float, limit: int) -> int:
    """Delete one batch of feedback that has not changed for this long. Return how much."""
    batch = select(Feedback.id).where(_expired(days)).limit(limit)
    deleted = session.execute(
        delete(Feedback).where(Feedback.id.in_(batch)).returning(Feedback.id),
        execution_options=_NO_SYNC,
    )
    return len(deleted.all())


def _expired(days: float) -> ColumnElement[bool]:
    return Feedback.updated_at < now() - days * DAY
