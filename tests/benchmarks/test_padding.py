"""What is computed on padding."""

import numpy as np
import pytest

from benchmarks.padding import at_random, grouped, ratio


def test_the_ratio_counts_every_batch_to_its_longest() -> None:
    assert ratio(np.array([4, 2, 3, 3]), [[0, 1], [2, 3]]) == pytest.approx(14 / 12)
    assert ratio(np.array([5, 5, 5]), [[0, 1], [2]]) == 1


def test_every_text_is_counted_once_either_way() -> None:
    lengths = np.random.default_rng(1).integers(5, 500, size=100)
    for batches in (grouped(lengths, 16, 4096), at_random(lengths, 16)):
        assert sorted(i for batch in batches for i in batch) == [*range(100)]


def test_texts_of_like_length_together_are_padded_less() -> None:
    lengths = np.random.default_rng(2).integers(5, 500, size=400)
    ours = ratio(lengths, grouped(lengths, 16, 4096))
    assert 1 <= ours < ratio(lengths, at_random(lengths, 16))
