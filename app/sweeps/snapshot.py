"""State of a sweep at one moment. Winner, exports and report read nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.jobs.results.comparison import SplitCorrectness

SPLITS = ("train", "validation", "test")
METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "loss")
FINAL_TRIAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
OPEN_SWEEP_STATES = frozenset({"running", "paused", "stopped"})  # the sweep may continue


@dataclass(frozen=True)
class TrialSnapshot:
    """One combination of settings and its results."""

    number: int
    settings: Mapping[str, Any]  # by field: {"method.r": 8, "method.targets": [...]}
    spec: Mapping[str, Any]  # the full job description, a TrainSpec as JSON
    state: str  # waiting, queued, running, succeeded, failed or cancelled
    budget: float  # share of all training steps that its last job ran; 1.0: complete
    trainable_parameters: int
    seconds: float | None  # running time of all its jobs
    metrics: Mapping[str, Mapping[str, float]]  # split -> metric -> value
    correctness: Mapping[str, SplitCorrectness]  # by split: which texts were classified correctly
    error: str | None = None
    job_id: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the trial ran with its full budget. Only such trials are compared."""
        return self.state == "succeeded" and self.budget == 1.0

    def metric(self, split: str, name: str) -> float | None:
        """Return a metric, or None if it is unknown, infinite or NaN."""
        value = self.metrics.get(split, {}).get(name)
        return None if value is None or not math.isfinite(value) else value


@dataclass(frozen=True, eq=False)
class SweepSnapshot:
    """A sweep and its trials. It hashes by identity, so derived results can be cached by it."""

    name: str
    state: str
    strategy: str
    objective: str  # accuracy, macro_f1, balanced_accuracy or loss, on the validation split
    fields: tuple[str, ...]  # the fields of the search space, in order
    trials: tuple[TrialSnapshot, ...]

    @cached_property
    def ranked(self) -> list[TrialSnapshot]:
        """Complete trials whose objective is known, the best first.

        Ties go to the fewest trainable parameters, then to the lowest number.
        """
        scored = [
            (score, trial)
            for trial in self.trials
            if trial.is_complete and (score := self.score(trial)) is not None
        ]
        sign = 1 if self.objective == "loss" else -1
        scored.sort(key=lambda each: (sign * each[0], each[1].trainable_parameters, each[1].number))
        return [trial for _, trial in scored]

    def score(self, trial: TrialSnapshot) -> float | None:
        """Return the objective of a trial, or None if it is unknown."""
        return trial.metric("validation", self.objective)
