"""State of a sweep at one moment, and its winner. Exports and report read nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from app.jobs.results.comparison import (
    PairedComparison,
    SplitCorrectness,
    compare_paired,
    have_same_texts_and_metric,
    significant_difference_flags,
)
from lora_core.results import MetricName
from lora_core.tasks.metric_info import METRICS

SPLITS = ("train", "validation", "test")
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
    def succeeded_at_full_budget(self) -> bool:
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
    objective: str  # one of `METRICS`, on the validation split
    fields: tuple[str, ...]  # the fields of the search space, in order
    trials: tuple[TrialSnapshot, ...]
    main_metric: str = "accuracy"  # of the task

    @cached_property
    def ranked(self) -> list[TrialSnapshot]:
        """Complete trials whose objective is known, the best first.

        Ties go to the fewest trainable parameters, then to the lowest number.
        """
        scored = [
            (score, trial)
            for trial in self.trials
            if trial.succeeded_at_full_budget and (score := self.objective_value(trial)) is not None
        ]
        sign = METRICS[self.objective].sign()
        scored.sort(
            key=lambda each: (-sign * each[0], each[1].trainable_parameters, each[1].number)
        )
        return [trial for _, trial in scored]

    def objective_value(self, trial: TrialSnapshot) -> float | None:
        """Return the objective of a trial, or None if it is unknown."""
        return trial.metric("validation", self.objective)


# -- The winner, and the cheapest trial within noise of it ----------------------------------------


@dataclass(frozen=True)
class SplitScore:
    """Results of a trial on one split."""

    metric: MetricName  # that models of this task are compared by
    value: float
    low: float  # bounds of the 95% confidence interval of the value
    high: float
    texts: int
    is_capped: bool  # these are the first texts of the split; the objective is that of all
    objective: float | None  # the objective of the sweep on this split; None: unknown


@dataclass(frozen=True)
class WinnerAndCheapest:
    """The winner on validation, the trials within noise of it, and the cheapest of them.

    Selection by validation results is optimistic, so the test split gives the final comparison.
    """

    winner: int  # trial number
    cheapest: int  # trial number, possibly that of the winner
    within_noise: tuple[int, ...]  # trial numbers in ascending order, the winner among them
    compared: int  # trials evaluated on the winner's validation texts, the winner among them
    winner_validation: SplitScore | None  # None: the correctness of each text is unknown
    cheapest_validation: SplitScore | None
    winner_test: SplitScore | None
    cheapest_test: SplitScore | None
    validation: PairedComparison | None  # winner minus cheapest; None if they are the same trial
    test: PairedComparison | None


@lru_cache(maxsize=8)
def select_winner_and_cheapest(snapshot: SweepSnapshot) -> WinnerAndCheapest | None:
    """Select among the complete trials; return None if no objective is known.

    The winner has the best objective; ties go to the fewest trainable parameters, then to the
    lowest number. A trial is within noise of the winner if they do not differ on the same
    validation texts: by the exact McNemar test of their accuracies (p >= 0.05), or by the 95%
    interval of the difference of their macro F1 or RMSE. The cheapest of these has the fewest
    trainable parameters; ties go to the better objective, then to the lowest number.
    """
    ranked = snapshot.ranked
    if not ranked:
        return None
    winner = ranked[0]
    comparable = [
        trial
        for trial in ranked
        if trial is winner or _common_correctness(winner, trial, "validation")
    ]
    within_noise = _within_noise(winner, comparable)
    # The list keeps the order of the ranking, and `min` returns the first of equals.
    cheapest = min(within_noise, key=lambda trial: trial.trainable_parameters)
    return WinnerAndCheapest(
        winner=winner.number,
        cheapest=cheapest.number,
        within_noise=tuple(sorted(trial.number for trial in within_noise)),
        compared=len(comparable),
        winner_validation=_split_score(snapshot, winner, "validation"),
        cheapest_validation=_split_score(snapshot, cheapest, "validation"),
        winner_test=_split_score(snapshot, winner, "test"),
        cheapest_test=_split_score(snapshot, cheapest, "test"),
        validation=_compare_trials(winner, cheapest, "validation"),
        test=_compare_trials(winner, cheapest, "test"),
    )


def _within_noise(winner: TrialSnapshot, comparable: list[TrialSnapshot]) -> list[TrialSnapshot]:
    others = [trial for trial in comparable if trial is not winner]
    if not others:
        return [winner]
    differ = significant_difference_flags(
        winner.correctness["validation"], [trial.correctness["validation"] for trial in others]
    )
    return [winner, *(trial for trial, drop in zip(others, differ, strict=True) if not drop)]


def _common_correctness(
    a: TrialSnapshot, b: TrialSnapshot, split: str
) -> tuple[SplitCorrectness, SplitCorrectness] | None:
    """Return the correctness of both trials on a split, or None unless the texts are the same."""
    if split not in a.correctness or split not in b.correctness:
        return None
    of_a, of_b = a.correctness[split], b.correctness[split]
    return (of_a, of_b) if have_same_texts_and_metric(of_a, of_b) else None


def _compare_trials(
    winner: TrialSnapshot, cheapest: TrialSnapshot, split: str
) -> PairedComparison | None:
    pair = None if cheapest is winner else _common_correctness(winner, cheapest, split)
    return compare_paired(*pair) if pair else None


def _split_score(snapshot: SweepSnapshot, trial: TrialSnapshot, split: str) -> SplitScore | None:
    correctness = trial.correctness.get(split)
    if correctness is None or correctness.count == 0:
        return None
    low, high = correctness.interval
    return SplitScore(
        metric=correctness.metric.name,
        value=correctness.value,
        low=low,
        high=high,
        texts=correctness.count,
        is_capped=correctness.is_capped,
        objective=trial.metric(split, snapshot.objective),
    )
