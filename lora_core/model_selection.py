"""The method `auto`: plan the candidates and select the best. Needs no torch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_core.confidence_intervals import Interval
from lora_core.specs.method import (
    NUM_FOLDS,
    CandidateSpec,
    LinearSpec,
    LoraSpec,
    ProbeSpec,
    SingleMethod,
)
from lora_core.specs.task import RegressionSpec, SingleLabelSpec, TaskSpec

# Candidates that are fitted in seconds. Their settings and order were chosen without test texts of
# a benchmark (docs/decisions/0043).
PROBE_CANDIDATES = (
    ProbeSpec(C=3.0, class_weight="balanced"),
    ProbeSpec(C=1.0),
    ProbeSpec(C=10.0),
)
LINEAR_CANDIDATES = (
    LinearSpec(C=30.0, ngram_range=(1, 1), class_weight="balanced"),
    LinearSpec(),
)
LORA_CANDIDATE = LoraSpec()

# With fewer texts, noise hides the differences between methods, so LoRA, usually the best, comes
# first. From here on the cheaper methods do (docs/decisions/0043).
CHEAPEST_FIRST_MIN_TEXTS = 200
MIN_HELD_OUT_TEXTS = 500  # enough to distinguish methods
# (texts, repeats) of methods that are fitted at once; with more texts, there is one repeat.
REPEATS_UP_TO = ((300, 5), (1000, 2))
_PROBE_SECONDS = 1e-4  # per text, of one logistic regression
_SINGLE_LABEL = SingleLabelSpec()
NOISE_STANDARD_ERRORS = 0.75  # by which a later candidate must be better than an earlier one

# Estimates the seconds that a method takes on a number of training texts.
SecondsEstimator = Callable[[SingleMethod, int], float]


@dataclass(frozen=True)
class CandidateScores:
    """How well a candidate predicts, by the metric of the task and text by text.

    The scores are those of `PrimaryMetric.scores`, the mean over repeats; of a single-label task
    the share of correct predictions.
    """

    by_text: NDArray[np.float64]  # (texts,), higher is better; NaN if a text was not predicted
    value: float  # of the metric
    interval: Interval  # 95%. Repeats do not narrow it: the texts are the same.

    @property
    def scored_mask(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.by_text)


def plan_candidates(
    texts: int,
    budget: float,
    seconds_of: SecondsEstimator,
    *,
    task: TaskSpec = _SINGLE_LABEL,
) -> tuple[CandidateSpec, ...]:
    """Return the candidates to evaluate within `budget` seconds, including the final fit.

    They are in order of preference. The cheapest candidate is always included.
    """
    folds = num_folds_to_evaluate(texts)
    repeats = next((each for limit, each in REPEATS_UP_TO if texts <= limit), 1)
    linear = tuple(
        CandidateSpec(method=_for_task(each, task), folds=folds, repeats=repeats)
        for each in LINEAR_CANDIDATES
    )
    probes = tuple(
        CandidateSpec(method=_for_task(each, task), folds=folds, repeats=repeats)
        for each in PROBE_CANDIDATES
    )
    lora = [CandidateSpec(method=LORA_CANDIDATE, folds=fewer) for fewer in range(folds, 0, -1)]
    if texts < CHEAPEST_FIRST_MIN_TEXTS:  # all folds: they are also what the verdict is based on
        with_lora = [(lora[0], *probes, *linear)]
    else:
        with_lora = [(*probes, *linear, each) for each in lora]
    plans = [*with_lora, (*probes, *linear), linear]
    cheapest = (CandidateSpec(method=LINEAR_CANDIDATES[-1], folds=1),)
    return next(
        (each for each in plans if estimate_selection_seconds(each, texts, seconds_of) <= budget),
        cheapest,
    )


def _for_task(method: ProbeSpec | LinearSpec, task: TaskSpec) -> ProbeSpec | LinearSpec:
    """Return the method for this task. Numbers have no labels to weight."""
    if isinstance(task, RegressionSpec):
        return method.model_copy(update={"class_weight": None})
    return method


def estimate_selection_seconds(
    candidates: Sequence[CandidateSpec], texts: int, seconds_of: SecondsEstimator
) -> float:
    """Return the seconds of all fits, and of the final fit of the slowest method."""
    train = texts * (NUM_FOLDS - 1) // NUM_FOLDS
    has_probe = any(isinstance(each.method, ProbeSpec) for each in candidates)
    encoder_pass = has_probe * seconds_of(ProbeSpec(), texts)  # shared by all probes
    fits = (
        each.n_fits
        * (
            train * _PROBE_SECONDS
            if each.method.type == "probe"
            else seconds_of(each.method, train)
        )
        for each in candidates
    )
    return encoder_pass + sum(fits) + max(seconds_of(each.method, texts) for each in candidates)


def num_folds_to_evaluate(texts: int) -> int:
    """Return how many of the `NUM_FOLDS` folds are needed to hold out `MIN_HELD_OUT_TEXTS`."""
    return min(NUM_FOLDS, math.ceil(MIN_HELD_OUT_TEXTS * NUM_FOLDS / texts))


def select_candidate_index(scores: Sequence[CandidateScores]) -> int:
    """Return the index of the best candidate, or of an earlier one within noise of it.

    They are compared on the texts that all of them predicted.
    """
    common = np.logical_and.reduce([each.scored_mask for each in scores])
    by_text = np.stack([each.by_text[common] for each in scores])  # (candidates, texts)
    best = int(by_text.mean(axis=1).argmax())
    differences = by_text[best] - by_text
    errors = differences.std(axis=1) / math.sqrt(by_text.shape[1])
    within_noise = differences.mean(axis=1) <= NOISE_STANDARD_ERRORS * errors
    return int(within_noise.argmax())
