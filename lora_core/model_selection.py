"""The method `auto`: what it tries, and which of it is best. Needs no torch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_core.confidence_intervals import wilson
from lora_core.specs.frozen import Float, Frozen, Int
from lora_core.specs.method import FOLDS, Candidate, LinearSpec, LoraSpec, OneMethod, ProbeSpec

# Those fitted in seconds. Settings and order were chosen on data that no benchmark reports
# (docs/decisions/0043).
PROBES = (
    ProbeSpec(C=3.0, class_weight="balanced"),
    ProbeSpec(C=1.0),
    ProbeSpec(C=10.0),
)
LINEAR = (
    LinearSpec(C=30.0, ngram_range=(1, 1), class_weight="balanced"),
    LinearSpec(),
)
LORA = LoraSpec()

LEAST_LORA = 200  # texts: with fewer, its folds take minutes and it is hardly ever better
ENOUGH = 500  # held-out texts that tell methods apart
REPEATED = ((300, 5), (1000, 2))  # up to so many texts, so many repeats of what is fitted at once
PROBE_SECONDS = 1e-4  # of one regression, for each text
NOISE = 0.75  # standard errors that a later candidate must be better than an earlier one

Seconds = Callable[[OneMethod, int], float]  # that a method takes for so many training texts


class CandidateResult(Frozen):
    """What a method answered to texts that it had not learned from."""

    method: OneMethod = Field(discriminator="type")
    folds: Int
    repeats: Int
    texts: Int
    accuracy: Float
    low: Float  # of its 95 % interval
    high: Float
    macro_f1: Float
    seconds: Float


class Selection(Frozen):
    """What was tried, and the number of what was chosen, from 0."""

    texts: Int  # that the chosen method is trained on
    chosen: Int
    candidates: tuple[CandidateResult, ...]

    @property
    def method(self) -> OneMethod:
        return self.candidates[self.chosen].method


@dataclass(frozen=True)
class Scores:
    """Of each text how often it was answered rightly, 0 to 1; NaN: it was not answered."""

    right: NDArray[np.float64]  # (texts,)

    @property
    def answered(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.right)

    @property
    def accuracy(self) -> float:
        return float(np.nanmean(self.right))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy, 95 %: repeats make it no narrower, since the texts are the same."""
        return wilson(self.accuracy, int(self.answered.sum()))


def plan(texts: int, budget: float, of: Seconds) -> tuple[Candidate, ...]:
    """What can be tried on so many texts within `budget` seconds, the final fit included.

    The cheapest candidate is there however small the budget is.
    """
    folds = folds_of(texts)
    repeats = next((each for most, each in REPEATED if texts <= most), 1)
    linear = tuple(Candidate(method=each, folds=folds, repeats=repeats) for each in LINEAR)
    probes = tuple(Candidate(method=each, folds=folds, repeats=repeats) for each in PROBES)
    lora = [Candidate(method=LORA, folds=fewer) for fewer in range(folds, 0, -1)]
    if texts < LEAST_LORA:
        lora = []
    plans = [*((*probes, *linear, each) for each in lora), (*probes, *linear), linear]
    cheapest = (Candidate(method=LINEAR[-1], folds=1),)
    return next((each for each in plans if seconds(each, texts, of) <= budget), cheapest)


def seconds(candidates: Sequence[Candidate], texts: int, of: Seconds) -> float:
    """Of all fits, and of the last one by the method that takes longest for it."""
    part = texts * (FOLDS - 1) // FOLDS
    read = any(isinstance(each.method, ProbeSpec) for each in candidates) * of(ProbeSpec(), texts)
    fits = (
        each.fits * (part * PROBE_SECONDS if each.method.type == "probe" else of(each.method, part))
        for each in candidates
    )
    return read + sum(fits) + max(of(each.method, texts) for each in candidates)


def folds_of(texts: int) -> int:
    """As many of the `FOLDS` as hold `ENOUGH` texts."""
    return min(FOLDS, math.ceil(ENOUGH * FOLDS / texts))


def choose(scores: Sequence[Scores]) -> int:
    """The number of the best, or of an earlier one that is as good within noise.

    All are compared on the texts that each of them answered.
    """
    common = np.logical_and.reduce([each.answered for each in scores])
    right = np.stack([each.right[common] for each in scores])  # (candidates, texts)
    best = int(right.mean(axis=1).argmax())
    differences = right[best] - right
    errors = differences.std(axis=1) / math.sqrt(right.shape[1])
    as_good = differences.mean(axis=1) <= NOISE * errors
    return int(as_good.argmax())
