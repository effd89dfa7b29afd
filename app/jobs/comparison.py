"""Two models on the same texts: is one better, and by how much?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.jobs.graded import Graded
from lora_core.intervals import Interval, paired, wilson

Counts = NDArray[np.int64]
CHANCE = 0.05  # a p value below it is hardly chance


@dataclass(frozen=True)
class Comparison:
    """How one model, `a`, did beside another, `b`, on texts that both answered."""

    p: float  # of the exact McNemar test: how often equals differ as much
    difference: float  # accuracy of a less that of b
    low: float  # its 95 % interval
    high: float
    texts: int
    only_a: int  # texts that a alone answered rightly
    only_b: int


def compare(a: Graded, b: Graded) -> Comparison:
    """Both on the texts they share.

    `p` decides; the interval says how large the difference may be. Close to p = 0.05 the one may
    see a difference and the other none. Raises `ValueError` where they answered other texts.
    """
    if not same_texts(a, b):
        raise ValueError("these answered other texts")
    only_a, only_b = discordant(a, [b])
    p = float(mcnemar(only_a, only_b)[0])
    return _compared(int(only_a[0]), int(only_b[0]), a.count, p)


def accuracy(graded: Graded) -> float:
    """The share of its texts that were answered rightly."""
    return _right(graded) / graded.count


def interval(graded: Graded) -> Interval:
    """Of the accuracy, 95 %."""
    return wilson(accuracy(graded), graded.count)


def same_texts(a: Graded, b: Graded) -> bool:
    """Whether they answered the same texts in the same order, and at least one."""
    return a.count > 0 and (a.texts_sha256, a.count) == (b.texts_sha256, b.count)


def discordant(a: Graded, others: Sequence[Graded]) -> tuple[Counts, Counts]:
    """For each of the others: texts that `a` alone answered rightly, and those the other alone."""
    ours = np.frombuffer(a.correct, dtype=np.uint8)
    theirs = np.stack([np.frombuffer(each.correct, dtype=np.uint8) for each in others])
    only_a, only_b = (
        np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        for bits in (ours & ~theirs, theirs & ~ours)
    )
    return only_a, only_b


def mcnemar(only_a: Counts, only_b: Counts) -> NDArray[np.float64]:
    """Two-sided p values of the exact test (McNemar 1947, Psychometrika 12, 153-157).

    Were both equally good, each text that one alone has right would be a toss of a fair coin:
    `scipy.stats.binomtest(only_a, only_a + only_b)`, of many pairs at once.
    """
    from scipy.special import bdtr  # as scipy.stats has it, which takes a second to load

    tail = bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    return np.asarray(np.minimum(1.0, 2 * tail), dtype=np.float64)


def _right(graded: Graded) -> int:
    return int(np.bitwise_count(np.frombuffer(graded.correct, dtype=np.uint8)).sum())


def _compared(only_a: int, only_b: int, texts: int, p: float) -> Comparison:
    low, high = paired(only_a, only_b, texts)
    return Comparison(
        p=p,
        difference=(only_a - only_b) / texts,
        low=low,
        high=high,
        texts=texts,
        only_a=only_a,
        only_b=only_b,
    )
