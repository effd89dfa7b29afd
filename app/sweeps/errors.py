"""Errors of sweeps. Errors in a single job description come from `lora_core`."""

from typing import Any

from app.errors import Conflict, NotFound, TooManyRequests, UnprocessableContent


class SweepNotFound(NotFound):
    code = "sweep_not_found"
    title = "Sweep not found."
    message = "Sweep {sweep_id} does not exist."


class FieldNotVariable(UnprocessableContent):
    code = "unknown_field"
    title = "Field cannot be varied."
    message = "The field {field!r} in `space` cannot be varied: {reason}."


class ObjectiveUnsupported(UnprocessableContent):
    code = "objective_unsupported"
    title = "The task has no such metric to rank trials by."
    message = "objective: a {task} task has no {objective}; use one of {available}, or omit it."


class RangeReversed(UnprocessableContent):
    code = "range_reversed"
    title = "Range bounds are in the wrong order."
    message = (
        "The range of {field!r} goes from {low:g} to {high:g}: `low` must be less than `high`."
    )


class LogRangeNotPositive(UnprocessableContent):
    code = "range_not_positive"
    title = "Logarithmic range must start above zero."
    message = "The range of {field!r} is logarithmic, so `low` must be more than 0, not {low:g}."


class RangeNeedsCount(UnprocessableContent):
    code = "range_needs_count"
    title = "Range in a grid search needs a count."
    message = (
        "A grid search tries every value, but the range of {field!r} is continuous. Set `count`, "
        "list the values, or use another strategy."
    )


class TooManyTrialsInSweep(UnprocessableContent):
    code = "too_many_trials_in_sweep"
    title = "Too many trials in one sweep."
    message = (
        "The space has {trials:,} trials, and the limit for a sweep is {limit:,}. Use fewer "
        "values, or a strategy that draws a sample: random, halving with `trials`, or tpe."
    )


class TrialQuotaExceeded(TooManyRequests):
    code = "too_many_trials"
    title = "Trial quota of the API key exceeded."
    message = (
        "The running and paused sweeps of this API key have {there:,} trials. {added:,} more would "
        "exceed the limit of {limit:,} (LORAWORKS_MAX_TRIALS_PER_KEY). Wait for a sweep to finish, "
        "stop one, or start a smaller sweep."
    )


class SearchSpaceTooSmall(UnprocessableContent):
    code = "space_too_small"
    title = "Search space too small."
    message = "The space has only {there:,} different trials, but {asked:,} were requested."


class InvalidTrials(UnprocessableContent):
    code = "invalid_trials"
    title = "Some trials could never run."
    message = (
        "{count:,} of {total:,} trials could never run, so nothing was started. Trial {number} "
        "({settings}): {reason}."
    )

    def __init__(self, **detail: Any) -> None:
        """`trials` lists the first invalid trials, each with number, settings and reason."""
        super().__init__(**detail, **detail["trials"][0])


class NothingToExtend(UnprocessableContent):
    code = "nothing_to_extend"
    title = "The extension adds no trials."
    message = "The extension adds no trials to the sweep: {reason}."


class InvalidSweepTransition(Conflict):
    code = "invalid_sweep_transition"
    title = "Not possible in the current state of the sweep."
    message = "Sweep {sweep_id} is {state} and cannot be {wanted}: {hint}."


class NothingToPromote(Conflict):
    code = "nothing_to_promote"
    title = "The sweep has no winner yet."
    message = "Sweep {sweep_id} has no completed trial, so there is no winner to promote."


class TrialNotFound(NotFound):
    code = "trial_not_found"
    title = "Trial not found."
    message = "Sweep {sweep_id} has no trial {number}."


class TrialNotRunnable(Conflict):
    code = "trial_not_runnable"
    title = "The trial has no job, because none could be created."
    message = "Trial {number} of sweep {sweep_id} could get no job: {problem}."


class SweepNotFinished(Conflict):
    code = "sweep_not_finished"
    title = "A running sweep cannot be deleted."
    message = "Sweep {sweep_id} is {state}. Stop it first, and wait until its jobs have ended."
