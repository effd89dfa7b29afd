"""How often each label is predicted: now, before, and in training.

These numbers raise no alarm. Texts come in groups (a hundred tickets about one outage), and a test
of counts that takes them for independent draws would find a difference nearly every week.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.database.base import read_clock
from app.drift.schemas import LabelShareChange, ShareChange
from app.traffic import repository as traffic
from app.traffic.repository import DAY
from app.traffic.tables import MAX_LABEL_LENGTH, PredictionOutcome

PERIODS_BEFORE = 4  # that the recent one is compared with

_Counts = Mapping[tuple[PredictionOutcome, str], int]


@dataclass(frozen=True)
class LabelShares:
    """What a version predicted recently and before."""

    predicted: int
    predicted_before: int
    abstained: ShareChange
    labels: list[LabelShareChange]  # the largest change first


def read_label_shares(
    session: Session,
    *,
    model: str,
    number: int,
    days: float,
    training: Mapping[str, float] | None,
) -> LabelShares:
    """Return the shares of a version's labels in the last `days`, and in the four times before."""
    at = read_clock(session)
    since = traffic.floor_count_start(at, at - days * DAY)
    recent = _count(session, model, number, since)
    in_all = _count(
        session, model, number, traffic.floor_count_start(at, since - PERIODS_BEFORE * days * DAY)
    )
    before = {key: count - recent.get(key, 0) for key, count in in_all.items()}
    labels = {label for outcome, label in in_all if outcome is PredictionOutcome.LABEL}
    known = {label[:MAX_LABEL_LENGTH]: share for label, share in (training or {}).items()}
    changes = [
        LabelShareChange(
            label=label,
            recent=_label_share(recent, label),
            before=_label_share(before, label),
            training=None if training is None else known.get(label, 0.0),
        )
        for label in sorted(labels | known.keys())
    ]
    return LabelShares(
        predicted=_sum(recent, PredictionOutcome.TEXT),
        predicted_before=_sum(before, PredictionOutcome.TEXT),
        abstained=ShareChange(recent=_abstained_share(recent), before=_abstained_share(before)),
        labels=sorted(changes, key=_size, reverse=True),
    )


def _count(
    session: Session, model: str, number: int, since: float
) -> dict[tuple[PredictionOutcome, str], int]:
    counts = traffic.count_outcomes(session, model=model, since=since)
    return {
        (outcome, label): count
        for (of_number, outcome, label), count in counts.items()
        if of_number == number
    }


def _label_share(counts: _Counts, label: str) -> float | None:
    """Return the share of a label; of several targets, of the texts that were asked for its own."""
    target = label.partition("/")[0]
    texts = sum(counts.get((PredictionOutcome.TEXT, asked), 0) for asked in {"", target})
    return counts.get((PredictionOutcome.LABEL, label), 0) / texts if texts else None


def _abstained_share(counts: _Counts) -> float | None:
    texts = _sum(counts, PredictionOutcome.TEXT)
    return _sum(counts, PredictionOutcome.ABSTAINED) / texts if texts else None


def _sum(counts: _Counts, outcome: PredictionOutcome) -> int:
    return sum(count for (each, _), count in counts.items() if each is outcome)


def _size(change: LabelShareChange) -> float:
    """Return by how much the recent share differs from that before or, without one, in training."""
    reference = change.training if change.before is None else change.before
    if change.recent is None or reference is None:
        return 0.0
    return abs(change.recent - reference)
