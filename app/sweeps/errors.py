"""What can go wrong with sweeps. What is wrong with one description is said by `lora_core`."""

from typing import Any

from app.errors import Conflict, Invalid, NotFound, Overloaded


class SweepNotFound(NotFound):
    """There is no such sweep."""

    code = "sweep_not_found"
    message = "There is no sweep {sweep_id}."


class UnknownField(Invalid):
    """A space over a field that a job does not have."""

    code = "unknown_field"
    message = "The space names {field!r}, which cannot be varied: {reason}."


class RangeUpsideDown(Invalid):
    """A range whose ends are in the wrong order."""

    code = "range_upside_down"
    message = (
        "The range of {field!r} goes from {low:g} to {high:g}: `low` must be less than `high`."
    )


class RangeNotPositive(Invalid):
    """A logarithmic range that begins at zero or below."""

    code = "range_not_positive"
    message = "The range of {field!r} is logarithmic, so `low` must be more than 0, not {low:g}."


class RangeNeedsCount(Invalid):
    """A grid over a range without steps."""

    code = "range_needs_count"
    message = (
        "A grid takes every value, and the range of {field!r} has no end of them. Say how many "
        "with `count`, list them, or use another strategy."
    )


class TooManyCells(Invalid):
    """More cells than one sweep may have."""

    code = "too_many_cells"
    message = (
        "The space has {cells:,} cells, and a sweep may have {limit:,}. Take fewer values, or a "
        "strategy that takes a sample: random, halving with `cells`, or tpe."
    )


class TooManyTrials(Overloaded):
    """The sweeps of one key would have more trials than one key may have."""

    code = "too_many_trials"
    message = (
        "The sweeps of this key that run or are paused have {there:,} trials, and {added:,} more "
        "would be above {limit:,} (LORAWORKS_KEY_TRIALS). Wait for one to finish, stop one, or try "
        "fewer settings."
    )


class SpaceTooSmall(Invalid):
    """More cells asked for than there are."""

    code = "space_too_small"
    message = "The space has only {there:,} different cells, and {asked:,} are asked for."


class InvalidCells(Invalid):
    """Some cells of a space could never run."""

    code = "invalid_cells"
    message = (
        "{count:,} of {total:,} cells could never run, so nothing was started. Cell {number} "
        "({settings}): {reason}."
    )

    def __init__(self, **detail: Any) -> None:
        """`cells`: the first of them, each with number, settings and reason."""
        super().__init__(**detail, **detail["cells"][0])


class NothingToExtend(Invalid):
    """An extension that adds nothing."""

    code = "nothing_to_extend"
    message = "That adds no cell to the sweep: {reason}."


class IllegalSweepMove(Conflict):
    """The sweep is in a state that does not allow it."""

    code = "illegal_sweep_move"
    message = "Sweep {sweep_id} is {state} and cannot be {wanted}: {hint}."


class NothingToPromote(Conflict):
    """The sweep has no winner yet."""

    code = "nothing_to_promote"
    message = "Sweep {sweep_id} has no cell that ran to its end, so there is no winner to promote."


class CellNotFound(NotFound):
    """The sweep has no such cell."""

    code = "cell_not_found"
    message = "Sweep {sweep_id} has no cell {number}."


class SweepNotFinished(Conflict):
    """Only a sweep that does not run can be deleted."""

    code = "sweep_not_finished"
    message = "Sweep {sweep_id} is {state}. Stop it first, and wait until its jobs have ended."
