"""Share of padding in an epoch: `python -m benchmarks.padding`.

The samples at 512 tokens, by batch size and micro-batch tokens, compared with the same texts drawn
at random, as the Trainer does by default. Ends with one JSON object: padded tokens over useful.
"""

import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.train.plan import BASE
from benchmarks.train.reviews import read
from lora_core.data.batching import epoch_batches, micro_batches
from lora_core.encoders.load import resolve_base
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.train import OptimSpec

SOURCES = ("rotten-tomatoes", "imdb")
TEXTS = 6000
ON_CPU = OptimSpec().micro_batch_tokens
PLACES = ((16, ON_CPU), (32, ON_CPU), (64, 64 * 512))  # texts of an update, tokens at once


def ratio(lengths: NDArray[np.int64], batches: Iterable[Sequence[int]]) -> float:
    """Tokens padded to the longest of a batch, over the tokens of its texts."""
    found = [lengths[[*batch]] for batch in batches]
    padded = sum(len(each) * int(each.max()) for each in found)
    return padded / sum(int(each.sum()) for each in found)


def grouped(lengths: NDArray[np.int64], size: int, budget: int) -> Iterable[Sequence[int]]:
    """The micro-batches of an epoch of ours."""
    for update in epoch_batches(lengths, batch_size=size, seed=0, epoch=0):
        yield from micro_batches(lengths, update, budget)


def at_random(lengths: NDArray[np.int64], size: int) -> Iterable[Sequence[int]]:
    """All texts in batches of `size`, whatever their length."""
    order = np.random.default_rng(0).permutation(len(lengths)).tolist()
    return (order[i : i + size] for i in range(0, len(order), size))


def main() -> None:
    ratios: dict[str, dict[str, float]] = {}
    for source in SOURCES:
        data = DataSpec(source=source, train_size=TEXTS, validation_size=100, test_size=100)
        lengths = read(data, resolve_base(BASE))[1][Split.TRAIN].lengths
        for size, budget in PLACES:
            ours = ratio(lengths, grouped(lengths, size, budget))
            random = ratio(lengths, at_random(lengths, size))
            name = f"{source}, {size} texts, {budget} tokens"
            ratios[name] = {"ours": round(ours, 4), "at_random": round(random, 4)}
            print(f"{name:44} {ours:.3f}   at random {random:.3f}", flush=True)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
