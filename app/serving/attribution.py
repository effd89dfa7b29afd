"""What each word adds to a score: Shapley values, counted by captum.

Words join the text one after the other in some order, and each is credited with what the score
changes when it comes. Its value is the mean over orders. Hence the values of all words add up to
the score of the whole text less that of none (docs/decisions/0025).
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from lora_core.process import importing

FEW = 5  # words of which every order is tried: 120 orders, 32 texts
PAIRS = 8  # of orders, for more words
TOKENS = 8192  # in the texts of all orders; one pair is always tried

Order = Sequence[int]
Kept = tuple[bool, ...]  # which words are there


def orders(words: int, tokens: int) -> list[Order]:
    """The orders in which so many words of so many tokens join; always the same.

    Each is tried with its reverse, which halves the error and more: a word that comes early in one
    comes late in the other.
    """
    if words <= FEW:
        return list(itertools.permutations(range(words)))
    drawn = random.Random(0)  # noqa: S311
    of_a_pair = (words - 1) * tokens  # a text and the rest of it, after each word but the last
    some = [
        drawn.sample(range(words), words) for _ in range(max(1, min(PAIRS, TOKENS // of_a_pair)))
    ]
    return [each for order in some for each in (order, order[::-1])]


def steps(words: int, tried: Sequence[Order]) -> list[Kept]:
    """Every text that is needed, once: all words first, and none."""
    found = {(True,) * words: None, (False,) * words: None}  # a dict keeps their order
    for order in tried:
        there = [False] * words
        for word in order:
            there[word] = True
            found[tuple(there)] = None
    return list(found)


def shapley(scores: Mapping[Kept, float], tried: Sequence[Order]) -> list[float]:
    """The value of each word. `scores` holds those of all `steps`. Loads captum at first use."""
    torch, sampling_of = _captum()

    def forward(kept: Any) -> Any:
        """(texts, words) of ones and zeros -> (texts,)"""
        return torch.tensor([scores[tuple(row)] for row in kept.bool().tolist()])

    words = len(tried[0])
    sampling = sampling_of(forward)
    sampling.permutation_generator = lambda *_: tried
    values = sampling.attribute(torch.ones(1, words), perturbations_per_eval=words)
    return list(values[0].tolist())


@cache
def _captum() -> tuple[Any, Any]:
    with importing():
        import torch
        from captum.attr import ShapleyValueSampling
    return torch, ShapleyValueSampling
