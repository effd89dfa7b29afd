"""Shapley values of words: what each word adds to a score. Computed by captum.

The words join the text one after the other, in the order of a permutation, and each is credited
with the change of the score when it joins. Its Shapley value is the mean over permutations. Hence
the values of all words add up to the score of the whole text minus that of the empty text
(docs/decisions/0025).
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from lora_core.process import imports_without_gc

MAX_EXHAUSTIVE_WORDS = 5  # up to here all permutations are used: 120 of them, 32 texts
MAX_PERMUTATION_PAIRS = 8  # for more words
MAX_TOTAL_TOKENS = 8192  # in the texts of all permutations; one pair is used in any case

Permutation = Sequence[int]
Coalition = tuple[bool, ...]  # which words are in the text


def sample_permutations(words: int, tokens: int) -> list[Permutation]:
    """Return the permutations for a text of `words` words and `tokens` tokens; deterministic.

    Each permutation comes with its reverse (antithetic sampling), which halves the error or better:
    a word that is early in one is late in the other.
    """
    if words <= MAX_EXHAUSTIVE_WORDS:
        return list(itertools.permutations(range(words)))
    rng = random.Random(0)  # noqa: S311
    # Of a pair: after each word but the last, a text and its complement.
    tokens_per_pair = (words - 1) * tokens
    pairs = max(1, min(MAX_PERMUTATION_PAIRS, MAX_TOTAL_TOKENS // tokens_per_pair))
    sampled = [rng.sample(range(words), words) for _ in range(pairs)]
    return [each for permutation in sampled for each in (permutation, permutation[::-1])]


def coalitions(words: int, permutations: Sequence[Permutation]) -> list[Coalition]:
    """Return the distinct coalitions whose scores are needed: all words first, then no words."""
    ordered = {(True,) * words: None, (False,) * words: None}  # a dict keeps the order
    for permutation in permutations:
        present = [False] * words
        for word in permutation:
            present[word] = True
            ordered[tuple(present)] = None
    return list(ordered)


def shapley_values(
    scores: Mapping[Coalition, float], permutations: Sequence[Permutation]
) -> list[float]:
    """Return the Shapley value of each word. Imports captum at the first call.

    `scores` has the score of each of the `coalitions`.
    """
    torch, sampling_class = _import_captum()

    def forward(masks: Any) -> Any:
        """Masks (texts, words) of zeros and ones -> scores (texts,)."""
        return torch.tensor([scores[tuple(row)] for row in masks.bool().tolist()])

    words = len(permutations[0])
    sampling = sampling_class(forward)
    sampling.permutation_generator = lambda *_: permutations
    values = sampling.attribute(torch.ones(1, words), perturbations_per_eval=words)
    return list(values[0].tolist())


@cache
def _import_captum() -> tuple[Any, Any]:
    with imports_without_gc():
        import torch
        from captum.attr import ShapleyValueSampling
    return torch, ShapleyValueSampling
