"""Is the new version better? The comparison of two versions, and what follows from it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.retraining.feedback_labels import ONLY_TARGET, TaskIOSchema
from app.retraining.merged_texts import LABEL, LIVE_PART, PART, TEST_PART, read_prediction_results
from app.retraining.schemas import RetrainingComparison, VersionComparisonView
from app.retraining.states import NotPromotedReason
from lora_core.specs import predict
from lora_core.specs.encoded_labels import LabelValue, decode_label, decode_targets
from lora_core.specs.task import TaskTypeOfTarget
from lora_core.version_comparison import (
    Labels,
    PairedPrediction,
    VersionComparison,
    compare_versions,
    primary_metric_name,
)

MIN_TEXTS = 50  # with fewer, hardly any lead is significant, and none is convincing
_PREDICTED: Mapping[TaskTypeOfTarget, str] = {
    "single_label": predict.LABEL,
    "multi_label": predict.LABELS,
    "regression": predict.VALUE,
}


def compare_results(
    current: Path, new: Path, form: TaskIOSchema, *, earlier_tries: int
) -> RetrainingComparison | None:
    """Compare two versions by the results of their prediction runs. None: there are no texts.

    With fewer than `MIN_TEXTS`, no test decides, so it is not a try.
    """
    by_part: dict[str, list[PairedPrediction]] = {TEST_PART: [], LIVE_PART: []}
    for part, text in _evaluated_texts(current, new, form):
        by_part[part].append(text)
    every = [text for texts in by_part.values() for text in texts]
    if not every:
        return None
    parts = {
        part: _view(compare_versions(texts, form.tasks)) if texts else None
        for part, texts in by_part.items()
    }
    return RetrainingComparison(
        metric=primary_metric_name(form.tasks),
        all=_view(compare_versions(every, form.tasks)),
        test=parts[TEST_PART],
        live=parts[LIVE_PART],
        tries=earlier_tries + (len(every) >= MIN_TEXTS),
    )


def find_reasons_against_promotion(
    result: RetrainingComparison | None, level: float
) -> list[NotPromotedReason]:
    """Return why the new version must not go into production; empty if it may.

    One test decides, so the level holds: all other reasons only ever keep a version back.
    """
    if result is None or result.all.texts < MIN_TEXTS:
        return [NotPromotedReason.TOO_FEW_TEXTS]
    reasons = []
    if result.all.p_better > level:
        reasons.append(NotPromotedReason.NOT_BETTER)
    if result.test is not None and result.test.p_worse <= level:
        reasons.append(NotPromotedReason.WORSE_ON_TEST)
    if result.live is not None and result.live.p_worse <= level:
        reasons.append(NotPromotedReason.WORSE_ON_LIVE)
    return reasons


def _evaluated_texts(
    current: Path, new: Path, form: TaskIOSchema
) -> Iterator[tuple[str, PairedPrediction]]:
    """Yield the texts of both results, which have the same rows, with the part of each."""
    for first, second in zip(
        read_prediction_results(current), read_prediction_results(new), strict=True
    ):
        truth = _truth(first[LABEL], form)
        yield (
            first[PART],
            PairedPrediction(truth, _predicted(first, form), _predicted(second, form)),
        )


def _truth(label: str, form: TaskIOSchema) -> Labels:
    if ONLY_TARGET in form.tasks:
        return {ONLY_TARGET: decode_label(label, form.tasks[ONLY_TARGET])}
    return decode_targets(label)


def _predicted(row: Mapping[str, Any], form: TaskIOSchema) -> Labels:
    of_targets = {ONLY_TARGET: row} if ONLY_TARGET in form.tasks else row[predict.TARGETS]
    return {target: _value(of_targets[target], task) for target, task in form.tasks.items()}


def _value(cells: Mapping[str, Any], task: TaskTypeOfTarget) -> LabelValue:
    value = cells[_PREDICTED[task]]
    return tuple(value) if task == "multi_label" else value


def _view(comparison: VersionComparison) -> VersionComparisonView:
    return VersionComparisonView.model_validate(asdict(comparison))
