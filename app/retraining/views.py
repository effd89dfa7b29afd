"""Response bodies of retraining, made from their rows; among them what happened, in words."""

from app.retraining.schemas import (
    RetrainingComparison,
    RetrainingErrorView,
    RetrainingRuleView,
    RetrainingRunView,
    TextCounts,
    VersionComparisonView,
)
from app.retraining.states import NotPromotedReason, RetrainingState
from app.retraining.tables import RetrainingRule, RetrainingRun
from lora_core.tasks.metric_info import METRICS


def rule_view(
    rule: RetrainingRule, model: str, *, waiting_labels: int, due_at: float | None, tries: int
) -> RetrainingRuleView:
    return RetrainingRuleView.model_validate(
        {
            **{name: getattr(rule, name) for name in _RULE_COLUMNS},
            "model": model,
            "waiting_labels": waiting_labels,
            "due_at": due_at,
            "tries": tries,
        }
    )


_RULE_COLUMNS = frozenset(RetrainingRuleView.model_fields) & frozenset(
    RetrainingRule.__mapper__.columns.keys()
)


def run_view(run: RetrainingRun, model: str) -> RetrainingRunView:
    data = None if run.data is None else TextCounts.model_validate(run.data)
    result = None if run.result is None else RetrainingComparison.model_validate(run.result)
    error = None
    if run.error_code is not None:
        error = RetrainingErrorView(code=run.error_code, message=run.error_message or "")
    return RetrainingRunView.model_validate(
        {
            **{name: getattr(run, name) for name in _RUN_COLUMNS},
            "model": model,
            "current": f"{model}:{run.current_number}",
            "new": None if run.new_number is None else f"{model}:{run.new_number}",
            "summary": _summary(run, result, error),
            "data": data,
            "result": result,
            "error": error,
        }
    )


_RUN_COLUMNS = (
    frozenset(RetrainingRunView.model_fields) & frozenset(RetrainingRun.__mapper__.columns.keys())
) - {"data", "result"}


_SENTENCES = {
    RetrainingState.COLLECTING: "The texts for training and evaluation are being collected.",
    RetrainingState.SEARCHING: "A sweep looks for the best settings.",
    RetrainingState.TRAINING: "The new version is being trained.",
    RetrainingState.CANCELLED: "It was cancelled.",
}


def _summary(
    run: RetrainingRun, result: RetrainingComparison | None, error: RetrainingErrorView | None
) -> str:
    """Return what happened, in a sentence or two."""
    new, current = f"Version {run.new_number}", f"version {run.current_number}"
    reasons = [_explain(NotPromotedReason(each), run, result, current) for each in run.reasons]
    match RetrainingState(run.state):
        case state if state in _SENTENCES:
            return _SENTENCES[state]
        case RetrainingState.EVALUATING:
            return f"{new} and {current} predict the evaluation texts."
        case RetrainingState.PROMOTED if reasons:  # before it was compared
            return f"{new} was promoted by somebody. It would be in shadow: {_join(reasons)}."
        case RetrainingState.PROMOTED if result is not None:
            return f"{new} went into production: it {_lead(result, run, current)}."
        case RetrainingState.SHADOWED:
            return f"{new} was not promoted, and has the alias shadow: {_join(reasons)}."
        case RetrainingState.SKIPPED:
            return f"Nothing was trained: {reasons[0]}."
        case RetrainingState.FAILED if error is not None:
            return f"It failed: {error.message}"
        case state:
            return f"It is {state.value}."


def _explain(
    reason: NotPromotedReason, run: RetrainingRun, result: RetrainingComparison | None, current: str
) -> str:
    """Return why a version was not promoted, as part of a sentence."""
    match reason:
        case NotPromotedReason.NOT_BETTER if result is not None:
            return f"it {_lead(result, run, current)}"
        case NotPromotedReason.TOO_FEW_TEXTS:
            texts = 0 if result is None else result.all.texts
            return f"there are only {texts} texts to evaluate it on"
        case NotPromotedReason.WORSE_ON_TEST if result is not None and result.test is not None:
            return f"it is worse on the test split of the data{_scores(result.test, result.metric)}"
        case NotPromotedReason.WORSE_ON_LIVE if result is not None and result.live is not None:
            return f"it is worse on live texts{_scores(result.live, result.metric)}"
        case NotPromotedReason.PRODUCTION_CHANGED:
            return f"{current} is not in production any more"
        case NotPromotedReason.NOTHING_NEW:
            return "there are no live texts that production was not trained on"
        case _:
            return reason.value.replace("_", " ")


def _lead(result: RetrainingComparison, run: RetrainingRun, current: str) -> str:
    """Return how the versions compare on all texts, as the end of a sentence."""
    p_value = result.all.p_better
    better, worse = result.all.better, result.all.worse
    counts = f"it predicts {better:,} of {result.all.texts:,} texts better and {worse:,} worse"
    verdict = "is better than" if p_value <= run.level else "is not clearly better than"
    comparison = "at most" if p_value <= run.level else "above"
    return (
        f"{verdict} {current}{_scores(result.all, result.metric)}; {counts}, and p "
        f"({format_p_value(p_value)}) is {comparison} the level of {run.level:g}"
    )


def _scores(part: VersionComparisonView, metric: str) -> str:
    new, current = (_format(each.value, metric) for each in (part.new, part.current))
    return f" ({METRICS[metric].label} {new} against {current})"


def _format(value: float, metric: str) -> str:
    return f"{value:.1%}" if METRICS[metric].is_share else f"{value:.4g}"


def format_p_value(value: float) -> str:
    """Format a p value with two significant digits."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
