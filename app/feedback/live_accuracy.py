"""How good a model is on live traffic, from feedback on a random sample of it.

Only texts that were drawn at random estimate accuracy. Feedback that people volunteered is counted
apart, because they report errors rather than what is right.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from sqlalchemy.orm import Session

from app.database.base import read_clock
from app.feedback import repository
from app.feedback.schemas import LiveAccuracy, LiveEstimate, VolunteeredFeedbackCounts
from app.feedback.tables import Feedback
from app.registry import repository as registry
from app.traffic import repository as traffic
from app.traffic.repository import DAY, KeptPredictionCounts, KeptPredictionKey
from app.traffic.tables import PredictionOutcome
from lora_core.confidence_intervals import wilson_interval
from lora_core.prediction_powered_inference import estimate_mean
from lora_core.specs.encoded_labels import decode_label_set
from lora_core.specs.task import TaskTypeOfTarget
from lora_core.tasks.primary_metric import (
    MIN_RESAMPLED_TEXTS,
    MacroF1,
    Predictions,
    PrimaryMetric,
    RootMeanSquaredError,
)

MIN_POWERED_TEXTS = 30
MAX_OTHER_TEXTS = 100_000  # whose probabilities an estimate uses, the newest


@dataclass(frozen=True)
class _Part:
    """A version, or one of its targets."""

    number: int
    target: str
    task: TaskTypeOfTarget


def list_live_accuracy(session: Session, *, model: str, days: float) -> list[LiveAccuracy]:
    """Return how good each version is on what it predicted in the last `days`, newest first.

    Raises `ModelNotFound`.
    """
    registry.get_model(session, model)
    at = read_clock(session)
    since = at - days * DAY
    counts = traffic.count_outcomes(
        session, model=model, since=traffic.floor_count_start(at, since)
    )
    kept = traffic.count_kept_by_version(session, model=model, since=since)
    parts: dict[_Part, list[Feedback]] = {}
    for row in repository.list_newest_per_target_and_subject(
        session, model=model, since=since, with_texts=False
    ):
        if row.answer is not None:  # otherwise nothing is known of the prediction
            parts.setdefault(_part(row), []).append(row)
    views = [
        _live_accuracy(session, model, part, rows, counts, _kept_of_part(kept, part), since)
        for part, rows in parts.items()
    ]
    return sorted(
        views, key=lambda each: (-int(each.version.rpartition(":")[2]), each.target or "")
    )


def _part(row: Feedback) -> _Part:
    return _Part(row.number, row.target, row.task)  # type: ignore[arg-type]


def _kept_of_part(
    kept: Sequence[KeptPredictionCounts], part: _Part
) -> Sequence[KeptPredictionCounts]:
    """Return the counts of requests for all targets, and for this one."""
    return [
        each for each in kept if each.number == part.number and each.target in (None, part.target)
    ]


def _live_accuracy(  # noqa: PLR0913 - what was read for all versions at once
    session: Session,
    model: str,
    part: _Part,
    rows: Sequence[Feedback],
    counts: dict[tuple[int, PredictionOutcome, str], int],
    kept: Sequence[KeptPredictionCounts],
    since: float,
) -> LiveAccuracy:
    predicted, abstained = (
        sum(counts.get((part.number, outcome, asked), 0) for asked in {"", part.target})
        for outcome in (PredictionOutcome.TEXT, PredictionOutcome.ABSTAINED)
    )
    sampled = [row for row in rows if row.sampled]
    volunteered = [row for row in rows if not row.sampled]
    return LiveAccuracy(
        version=f"{model}:{part.number}",
        target=part.target or None,
        task=part.task,
        predicted=predicted,
        abstained=abstained,
        kept=sum(each.kept for each in kept),
        sampled=max(sum(each.sampled for each in kept), len(sampled)),
        labeled=len(sampled),
        since=min((row.predicted_at for row in sampled if row.predicted_at), default=None),
        estimate=estimate_main_metric(sampled, part.task),
        with_scores=_with_scores(session, model, part, sampled, kept, since),
        further=estimate_multi_label_macro_f1(sampled, part.task),
        corrections=VolunteeredFeedbackCounts(
            texts=len(volunteered), changed=sum(row.answer != row.label for row in volunteered)
        ),
    )


def estimate_main_metric(
    sampled: Sequence[Feedback], task: TaskTypeOfTarget
) -> LiveEstimate | None:
    """Return the accuracy on randomly drawn texts, or the RMSE of numbers."""
    if not sampled:
        return None
    if task == "regression":
        return _resampled(RootMeanSquaredError(), _numbers(sampled), len(sampled))
    accuracy = float(np.mean(_correct(sampled)))
    low, high = wilson_interval(accuracy, len(sampled))
    return LiveEstimate(metric="accuracy", value=accuracy, low=low, high=high, texts=len(sampled))


def estimate_multi_label_macro_f1(
    sampled: Sequence[Feedback], task: TaskTypeOfTarget
) -> list[LiveEstimate]:
    """Return the macro F1 of a multi-label task; none if no label is true or predicted."""
    if task != "multi_label":
        return []
    pair = _label_sets(sampled)
    found = _resampled(MacroF1(), pair, len(sampled)) if pair[0].size else None
    return [found] if found else []


def _with_scores(
    session: Session,
    model: str,
    part: _Part,
    sampled: Sequence[Feedback],
    kept: Sequence[KeptPredictionCounts],
    since: float,
) -> LiveEstimate | None:
    """Return the prediction-powered accuracy; None if there is too little for it.

    Labeled and other texts are from the same time: since the oldest prediction that is kept or, of
    more than `MAX_OTHER_TEXTS`, that is read.
    """
    oldest = min((each.oldest for each in kept), default=inf)
    recent = [
        row for row in sampled if row.confidence is not None and (row.predicted_at or 0) >= oldest
    ]
    if len(recent) < MIN_POWERED_TEXTS:
        return None
    found = traffic.list_confidences(
        session, model=model, number=part.number, since=since, limit=MAX_OTHER_TEXTS
    )
    if len(found) == MAX_OTHER_TEXTS:
        first = min(found).prediction_id
        recent = [row for row in recent if row.prediction_id and row.prediction_id >= first]
        if len(recent) < MIN_POWERED_TEXTS:
            return None
    labeled = {KeptPredictionKey(row.prediction_id, row.position) for row in recent}  # type: ignore[arg-type]
    others = [
        score
        for key, scores in found.items()
        if key not in labeled
        if (score := scores.get(part.target)) is not None
    ]
    if not others:
        return None
    mean = estimate_mean(_correct(recent), [row.confidence or 0.0 for row in recent], others)
    return LiveEstimate(
        metric="accuracy",
        value=min(max(mean.value, 0.0), 1.0),
        low=max(mean.low, 0.0),
        high=min(mean.high, 1.0),
        texts=len(recent),
        other_texts=len(others),
    )


def _correct(rows: Iterable[Feedback]) -> list[float]:
    """Return 1 for each right answer, else 0. Of label sets, the whole set must be right."""
    return [float(row.answer == row.label) for row in rows]


def _resampled(
    metric: PrimaryMetric, pair: tuple[Predictions, Predictions], texts: int
) -> LiveEstimate | None:
    """Return a metric with its bootstrap interval. `pair`: the truth, and what was predicted."""
    if texts < MIN_RESAMPLED_TEXTS:
        return None
    statistics = metric.per_text_statistics(*pair)
    low, high = metric.interval(statistics)
    return LiveEstimate(
        metric=metric.name, value=metric.value(statistics), low=low, high=high, texts=texts
    )


def _numbers(rows: Sequence[Feedback]) -> tuple[Predictions, Predictions]:
    """Return two arrays (texts,)."""
    return (
        np.array([float(row.label) for row in rows]),
        np.array([float(row.answer or "nan") for row in rows]),
    )


def _label_sets(rows: Sequence[Feedback]) -> tuple[Predictions, Predictions]:
    """Return two arrays (texts, labels) of 0 and 1."""
    truth = [set(decode_label_set(row.label)) for row in rows]
    answers = [set(decode_label_set(row.answer or "[]")) for row in rows]
    names = sorted(set().union(*truth, *answers))
    first, second = (
        np.array([[name in each for name in names] for each in sets], dtype=np.uint8)
        for sets in (truth, answers)
    )
    return first, second
