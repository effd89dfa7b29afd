"""Elements that all charts of a sweep share.

Charts show the complete trials whose objective is known. The page sets the colors of text, grid
lines and color scales, since it can be light or dark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from app.charts.formatting import format_score, format_trial_settings
from app.sweeps.snapshot import SweepSnapshot, TrialSnapshot, WinnerAndCheapest
from lora_core.tasks.metric_info import METRICS

MAX_AXIS_LABEL_CHARACTERS = 28
LEGEND_LAYOUT = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def objective_label(snapshot: SweepSnapshot) -> str:
    """Return the name of the objective: `validation accuracy`."""
    return f"validation {METRICS[snapshot.objective].label}"


def format_trial_objective(snapshot: SweepSnapshot, trial: TrialSnapshot) -> str:
    """Format the objective of a trial: `90.3%`."""
    value = snapshot.objective_value(trial)
    return "unknown" if value is None else format_score(snapshot.objective, value)


def shorten_and_escape_label(text: str) -> str:
    """Shorten and escape a label on an axis: Plotly interprets `<b>` and similar markup."""
    if len(text) > MAX_AXIS_LABEL_CHARACTERS:
        text = f"{text[: MAX_AXIS_LABEL_CHARACTERS - 1]}…"
    return escape(text, quote=False)


def hover_text(snapshot: SweepSnapshot, trial: TrialSnapshot) -> str:
    """Return the hover label of a trial: its number, objective and settings."""
    settings = [escape(label, quote=False) for label in format_trial_settings(snapshot, trial)]
    heading = f"<b>trial {trial.number}: {format_trial_objective(snapshot, trial)}</b>"
    return "<br>".join([heading, *settings])


def tick_format(snapshot: SweepSnapshot) -> str:
    """Return the d3-format of the objective on an axis."""
    return ".1%" if METRICS[snapshot.objective].is_share else ".3~g"


def color_axis(snapshot: SweepSnapshot) -> dict[str, Any]:
    """Return the color scale of the objective, strongest at the best value."""
    return {"reversescale": METRICS[snapshot.objective].lower_is_better, "showscale": False}


# Markers of the winner and of the trials within noise of it, the same in every chart.


@dataclass(frozen=True)
class TrialMark:
    """Marker of a group of trials.

    Groups differ in shape and size as well as in color; the colors are visible on white and black.
    """

    name: str
    symbol: str
    size: int  # pixels
    width: float  # of a line, pixels
    color: str


_OTHER_MARK = TrialMark("other trials", "circle", 7, 0.7, "#8b95a5")
WITHIN_NOISE_MARK = TrialMark("within noise", "circle", 10, 1.5, "#3f87c9")
CHEAPEST_MARK = TrialMark("cheapest within noise", "diamond", 13, 3, "#1b9e77")
WINNER_MARK = TrialMark("winner", "star", 16, 3, "#e07b1a")


def trial_mark(trial: TrialSnapshot, selection: WinnerAndCheapest) -> TrialMark:
    """Return the marker of a trial; a winner that is also the cheapest is marked as the winner."""
    if trial.number == selection.winner:
        return WINNER_MARK
    if trial.number == selection.cheapest:
        return CHEAPEST_MARK
    return WITHIN_NOISE_MARK if trial.number in selection.within_noise else _OTHER_MARK


def group_by_mark(
    trials: Sequence[TrialSnapshot], selection: WinnerAndCheapest
) -> Iterator[tuple[TrialMark, list[TrialSnapshot]]]:
    """Iterate over the non-empty groups of trials by marker, the winner last so it is on top."""
    for mark in (_OTHER_MARK, WITHIN_NOISE_MARK, CHEAPEST_MARK, WINNER_MARK):
        if marked := [trial for trial in trials if trial_mark(trial, selection) is mark]:
            yield mark, marked
