"""Errors of sweeps. Errors in a single job description come from `lora_core`."""

from typing import Any

from app.errors import Conflict, NotFound, TooManyRequests, UnprocessableContent


class SweepNotFound(NotFound):
    """Sweep not found."""

    code = "sweep_not_found"
    message = "Sweep {sweep_id} does not exist."


class UnknownField(UnprocessableContent):
    """Field cannot be varied."""

    code = "unknown_field"
    message = "The field {field!r} in `space` cannot be varied: {reason}."


class RangeReversed(UnprocessableContent):
    """Range bounds are in the wrong order."""

    code = "range_upside_down"
    message = (
        "The range of {field!r} goes from {low:g} to {high:g}: `low` must be less than `high`."
    )


class LogRangeNotPositive(UnprocessableContent):
    """Logarithmic range must start above zero."""

    code = "range_not_positive"
    message = "The range of {field!r} is logarithmic, so `low` must be more than 0, not {low:g}."


class RangeNeedsCount(UnprocessableContent):
    """Range in a grid search needs a count."""

    code = "range_needs_count"
    message = (
        "A grid search tries every value, but the range of {field!r} is continuous. Set `count`, "
        "list the values, or use another strategy."
    )


class SearchSpaceTooLarge(UnprocessableContent):
    """Too many trials in one sweep."""

    code = "too_many_cells"
    message = (
        "The space has {cells:,} trials, and the limit for a sweep is {limit:,}. Use fewer values, "
        "or a strategy that draws a sample: random, halving with `cells`, or tpe."
    )


class TrialQuotaExceeded(TooManyRequests):
    """Trial quota of the API key exceeded."""

    code = "too_many_trials"
    message = (
        "The running and paused sweeps of this API key have {there:,} trials. {added:,} more would "
        "exceed the limit of {limit:,} (LORAWORKS_KEY_TRIALS). Wait for a sweep to finish, stop "
        "one, or use fewer settings."
    )


class SearchSpaceTooSmall(UnprocessableContent):
    """Search space too small."""

    code = "space_too_small"
    message = "The space has only {there:,} different trials, but {asked:,} were requested."


class InvalidTrials(UnprocessableContent):
    """Some trials could never run."""

    code = "invalid_cells"
    message = (
        "{count:,} of {total:,} trials could never run, so nothing was started. Trial {number} "
        "({settings}): {reason}."
    )

    def __init__(self, **detail: Any) -> None:
        """`cells` lists the first invalid trials, each with number, settings and reason."""
        super().__init__(**detail, **detail["cells"][0])


class NothingToExtend(UnprocessableContent):
    """The extension adds no trials."""

    code = "nothing_to_extend"
    message = "The extension adds no trials to the sweep: {reason}."


class IllegalSweepTransition(Conflict):
    """Not possible in the current state of the sweep."""

    code = "illegal_sweep_move"
    message = "Sweep {sweep_id} is {state} and cannot be {wanted}: {hint}."


class NothingToPromote(Conflict):
    """The sweep has no winner yet."""

    code = "nothing_to_promote"
    message = "Sweep {sweep_id} has no completed trial, so there is no winner to promote."


class TrialNotFound(NotFound):
    """Trial not found."""

    code = "cell_not_found"
    message = "Sweep {sweep_id} has no trial {number}."


class SweepNotFinished(Conflict):
    """A running sweep cannot be deleted."""

    code = "sweep_not_finished"
    message = "Sweep {sweep_id} is {state}. Stop it first, and wait until its jobs have ended."
