"""Batches: complete, without duplicates, within the token limit, in reproducible order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_core.data.batching import collate, epoch_batches, length_sorted_batches, micro_batches

lengths_of = st.lists(st.integers(1, 600), min_size=1, max_size=200).map(np.array)
budgets = st.integers(16, 2048)


def fits(batch: list[int], lengths: np.ndarray, budget: int) -> bool:
    return len(batch) == 1 or int(lengths[batch].max()) * len(batch) <= budget


@given(lengths=lengths_of, budget=budgets)
def test_length_sorted_batches_cover_each_text_once(lengths: np.ndarray, budget: int) -> None:
    batches = length_sorted_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(fits(batch, lengths, budget) for batch in batches)


@given(lengths=lengths_of, budget=budgets, size=st.integers(1, 40), seed=st.integers(0, 99))
def test_epoch_covers_each_text_once_in_full_batches(
    lengths: np.ndarray, budget: int, size: int, seed: int
) -> None:
    texts = epoch_batches(lengths, batch_size=size, seed=seed, epoch=0)
    updates = [micro_batches(lengths, update, budget) for update in texts]
    seen = [i for update in updates for batch in update for i in batch]
    assert sorted(seen) == list(range(len(lengths)))
    assert all(fits(batch, lengths, budget) for update in updates for batch in update)
    sizes = sorted(sum(map(len, update)) for update in updates)
    assert sizes[1:] == [size] * (len(sizes) - 1)
    assert 1 <= sizes[0] <= size


def test_order_depends_on_seed_and_epoch_only() -> None:
    lengths = np.arange(1, 101)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(epoch_batches(lengths, batch_size=8, seed=seed, epoch=epoch))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_batches_have_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 500, size=4000)
    updates = epoch_batches(lengths, batch_size=16, seed=0, epoch=0)
    padded = sum(int(lengths[u].max()) * len(u) for u in updates)
    assert padded / lengths.sum() < 1.05  # random batches pad 1.7 times the tokens


def test_long_text_gets_a_batch_of_its_own() -> None:
    assert micro_batches(np.array([3, 50, 3]), [0, 1, 2], max_tokens=10) == [[0], [1], [2]]


def test_collate_pads_and_masks() -> None:
    rows = [np.array([2, 5, 3], dtype=np.int32), np.array([2, 3], dtype=np.int32)]
    batch = collate(rows, pad_id=9)
    assert batch.input_ids.tolist() == [[2, 5, 3], [2, 3, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    wider = collate(rows, pad_id=9, length=4)
    assert wider.input_ids.tolist() == [[2, 5, 3, 9], [2, 3, 9, 9]]
    assert wider.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
