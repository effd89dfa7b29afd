"""All that is known of a sweep at one moment. Verdict, exports and report read nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.jobs.results.comparison import Graded

PARTS = ("train", "validation", "test")
FIGURES = ("accuracy", "macro_f1", "balanced_accuracy", "loss")
ENDED = frozenset({"succeeded", "failed", "cancelled"})  # states of a cell
AT_WORK = frozenset({"running", "paused", "stopped"})  # states of a sweep that may go on


@dataclass(frozen=True)
class Cell:
    """One combination of settings, and what its training came to."""

    number: int
    settings: Mapping[str, Any]  # what the space chose: {"method.r": 8, "method.targets": [...]}
    spec: Mapping[str, Any]  # the whole description of the job, a TrainSpec as JSON
    state: str  # waiting, queued, running, succeeded, failed or cancelled
    share: float  # of all its steps that its last job ran; 1.0: whole
    trainable_parameters: int
    seconds: float | None  # on a device, all its jobs together
    figures: Mapping[str, Mapping[str, float]]  # part -> figure -> value; only those known
    graded: Mapping[str, Graded]  # part -> its texts
    error: str | None = None
    job_id: str | None = None

    @property
    def whole(self) -> bool:
        """Whether it ran to its end. Only such cells are compared: a part of a run is no result."""
        return self.state == "succeeded" and self.share == 1.0

    def figure(self, part: str, name: str) -> float | None:
        """A figure; None where it is unknown or no number."""
        value = self.figures.get(part, {}).get(name)
        return None if value is None or not math.isfinite(value) else value


@dataclass(frozen=True, eq=False)
class Board:
    """A sweep and its cells. What is made of it is remembered by which board it is."""

    name: str
    state: str
    strategy: str
    objective: str  # accuracy, macro_f1, balanced_accuracy or loss, on the validation part
    fields: tuple[str, ...]  # those that the space varies, in its order
    cells: tuple[Cell, ...]

    @cached_property
    def ranked(self) -> list[Cell]:
        """Whole cells whose objective is known, the best first.

        Equal ones: the fewest trainable parameters first, then the lowest number.
        """
        known = [
            (score, cell)
            for cell in self.cells
            if cell.whole and (score := self.score(cell)) is not None
        ]
        sign = 1 if self.objective == "loss" else -1
        known.sort(key=lambda each: (sign * each[0], each[1].trainable_parameters, each[1].number))
        return [cell for _, cell in known]

    def score(self, cell: Cell) -> float | None:
        """The cell's objective; None where it is unknown."""
        return cell.figure("validation", self.objective)
