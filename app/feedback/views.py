"""Response bodies of feedback, made from their rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from app.feedback.labels import deserialize_label, extract_target_answer
from app.feedback.schemas import (
    FeedbackItemError,
    FeedbackItemOutcome,
    FeedbackItemResult,
    FeedbackItemResults,
    FeedbackView,
    LabelValue,
    ReviewText,
)
from app.feedback.tables import Feedback
from app.registry.model_io_schemas import ModelIOSchema
from app.traffic.repository import KeptPredictionKey, format_prediction_id
from app.traffic.tables import KeptPrediction
from lora_core.specs.task import TaskType, TaskTypeOfTarget

if TYPE_CHECKING:
    from app.feedback.service import FeedbackItemSubmission

ONLY_TARGET = "label"  # the name in bodies of the only target of a model


def feedback_view(row: Feedback) -> FeedbackView:
    """Return feedback with its labels as JSON has them."""
    task = cast(TaskTypeOfTarget, row.task)
    key = None
    if row.prediction_id is not None and row.position is not None:
        key = format_prediction_id(KeptPredictionKey(row.prediction_id, row.position))
    return FeedbackView(
        id=row.id,
        version=f"{row.model}:{row.number}",
        prediction_id=key,
        target=row.target or None,
        task=task,
        text=row.text,
        text_pair=row.text_pair,
        label=deserialize_label(row.label, task),
        answer=None if row.answer is None else deserialize_label(row.answer, task),
        changed=None if row.answer is None else row.answer != row.label,
        sampled=row.sampled,
        by=row.author,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def feedback_item_results_view(
    submissions: "Sequence[FeedbackItemSubmission]",
) -> FeedbackItemResults:
    """Return what became of each item."""
    results = [
        FeedbackItemResult(
            index=index,
            status=FeedbackItemOutcome.FAILED if each.error else each.status,
            id=each.row.id if each.row and not each.error else None,
            version=each.resolved.ref if each.resolved else None,
            error=FeedbackItemError(code=each.error.code, message=str(each.error))
            if each.error
            else None,
        )
        for index, each in enumerate(submissions)
    ]
    counts: Mapping[FeedbackItemOutcome, int] = Counter(each.status for each in results)
    return FeedbackItemResults(
        data=results,
        created=counts[FeedbackItemOutcome.CREATED],
        updated=counts[FeedbackItemOutcome.UPDATED],
        unchanged=counts[FeedbackItemOutcome.UNCHANGED],
        failed=counts[FeedbackItemOutcome.FAILED],
    )


def review_text_view(
    prediction: KeptPrediction, missing: Sequence[str], outputs: ModelIOSchema
) -> ReviewText:
    """Return a prediction to label."""
    return ReviewText(
        prediction_id=format_prediction_id(
            KeptPredictionKey(prediction.prediction_id, prediction.position)
        ),
        text=prediction.text,
        text_pair=prediction.text_pair,
        answer=_answers(prediction, outputs),
        scores=prediction.scores,
        missing=[name or ONLY_TARGET for name in missing],
    )


def _answers(prediction: KeptPrediction, outputs: ModelIOSchema) -> dict[str, LabelValue]:
    """Return what was predicted, by target."""
    if outputs.has_several_targets and prediction.target is None:
        return {
            name: deserialize_label(
                extract_target_answer(prediction.answer, name, several=True), target.task
            )
            for name, target in outputs.targets.items()
        }
    name = prediction.target or ONLY_TARGET
    task: TaskType = cast(TaskType, prediction.task)
    return {name: deserialize_label(prediction.answer, task)}
