"""Labels and order of the fields of a sweep, their values and its metrics."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_core.specs.method import LayerRole
from lora_core.tasks.metric_info import METRICS

if TYPE_CHECKING:  # the command line imports this module without SQLAlchemy
    from app.sweeps.snapshot import SweepSnapshot, TrialSnapshot

STATE_ORDER = ("succeeded", "failed", "cancelled", "running", "queued", "waiting")  # of trials
_MISSING_VALUE = "-"


@dataclass(frozen=True)
class Axis:
    """A field and its values: numbers ascending, others in the order of the trials."""

    field: str
    label: str
    tick_labels: tuple[str, ...]  # the values as text, each once
    numeric_values: tuple[float, ...] | None  # the values, if all of them are numbers

    def value_index(self, trial: "TrialSnapshot") -> int:
        """Return the index of the trial's value."""
        return self.tick_labels.index(format_setting_value(trial.settings.get(self.field)))


def format_setting_value(value: Any) -> str:
    """Format a value for reading: `query+value`, `all` for every role, `16` for 16.0."""
    match value:
        case None:
            return _MISSING_VALUE
        case list() | tuple():
            is_all = set(map(str, value)) == set(LayerRole)
            return "all" if is_all else "+".join(map(format_setting_value, value))
        case bool() | dict():
            return json.dumps(value, ensure_ascii=False)
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def field_labels(fields: Sequence[str]) -> dict[str, str]:
    """Return the last part of each field name (`r`), or the full name where that is ambiguous."""
    short = [field.rsplit(".", 1)[-1] for field in fields]
    return {
        field: name if short.count(name) == 1 else field
        for field, name in zip(fields, short, strict=True)
    }


def varied_axes(snapshot: "SweepSnapshot", trials: "Sequence[TrialSnapshot]") -> list[Axis]:
    """Return the fields with two or more values in these trials, in the order of the space."""
    labels = field_labels(snapshot.fields)
    axes = [_make_axis(field, labels[field], trials) for field in snapshot.fields]
    return [axis for axis in axes if len(axis.tick_labels) > 1]


def format_trial_settings(snapshot: "SweepSnapshot", trial: "TrialSnapshot") -> list[str]:
    """Format the settings of a trial: `r = 8`, `alpha = 16`."""
    labels = field_labels(snapshot.fields)
    return [
        f"{labels[field]} = {format_setting_value(trial.settings.get(field))}"
        for field in snapshot.fields
    ]


def capitalize_first(text: str) -> str:
    """Return text that begins a sentence or a title: `Macro F1`, and not `Macro f1`."""
    return text[:1].upper() + text[1:]


def format_number(value: float, *, digits: int = 4, sign: str = "-") -> str:
    """Format with these significant digits, or all of a whole number: `0.4312`, `12,345`."""
    if 10**digits - 0.5 <= abs(value) < 1e15:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.{digits}g}"


def format_percent(fraction: float) -> str:
    """Format a fraction of 1 as a percentage."""
    return f"{100 * fraction:.1f}%"


def format_score(objective: str, value: float) -> str:
    """Format an objective: a percentage, or a number such as a loss."""
    if METRICS[objective].is_share:
        return format_percent(value)
    return f"{value:.3f}" if 0.1 <= abs(value) < 1000 else format_number(value)


def format_interval(metric: str, low: float, high: float) -> str:
    """Format the interval of a metric: `60.4 to 78.1` percent, or `0.412 to 0.533`."""
    if METRICS[metric].is_share:
        return f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{format_number(low)} to {format_number(high)}"


def format_difference(metric: str, difference: float) -> str:
    """Format a difference of metrics with its sign: percentage points, or a number."""
    if METRICS[metric].is_share:
        return f"{round(100 * difference, 1) + 0.0:+.1f}"  # + 0.0: a rounded zero has no minus
    return format_number(difference + 0.0, digits=3, sign="+")


def is_numeric_field(trials: "Sequence[TrialSnapshot]", field: str) -> bool:
    """Return whether the field is a number in every trial."""
    values = [trial.settings.get(field) for trial in trials]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _make_axis(field: str, label: str, trials: "Sequence[TrialSnapshot]") -> Axis:
    by_label: dict[str, Any] = {
        format_setting_value(value): value
        for value in (trial.settings.get(field) for trial in trials)
    }
    if not is_numeric_field(trials, field):
        return Axis(field, label, tuple(by_label), None)
    ascending = sorted(by_label, key=lambda text: float(by_label[text]))
    return Axis(field, label, tuple(ascending), tuple(float(by_label[text]) for text in ascending))
