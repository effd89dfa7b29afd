"""Batches: nothing lost, nothing twice, budget kept, order a function of seed and epoch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_core.data.batching import by_length, collate, epoch_updates, micro_batches

lengths_of = st.lists(st.integers(1, 600), min_size=1, max_size=200).map(np.array)
budgets = st.integers(16, 2048)


def fits(batch: list[int], lengths: np.ndarray, budget: int) -> bool:
    return len(batch) == 1 or int(lengths[batch].max()) * len(batch) <= budget


@given(lengths=lengths_of, budget=budgets)
def test_evaluation_sees_each_text_once_within_the_budget(lengths: np.ndarray, budget: int) -> None:
    batches = by_length(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(fits(batch, lengths, budget) for batch in batches)


@given(lengths=lengths_of, budget=budgets, size=st.integers(1, 40), seed=st.integers(0, 99))
def test_an_epoch_sees_each_text_once_in_updates_of_the_batch_size(
    lengths: np.ndarray, budget: int, size: int, seed: int
) -> None:
    texts = epoch_updates(lengths, batch_size=size, seed=seed, epoch=0)
    updates = [micro_batches(lengths, update, budget) for update in texts]
    seen = [i for update in updates for batch in update for i in batch]
    assert sorted(seen) == list(range(len(lengths)))
    assert all(fits(batch, lengths, budget) for update in updates for batch in update)
    sizes = sorted(sum(map(len, update)) for update in updates)
    assert sizes[1:] == [size] * (len(sizes) - 1)
    assert 1 <= sizes[0] <= size


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    lengths = np.arange(1, 101)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(epoch_updates(lengths, batch_size=8, seed=seed, epoch=epoch))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_texts_of_like_length_stand_together() -> None:
    lengths = np.random.default_rng(0).integers(5, 500, size=4000)
    updates = epoch_updates(lengths, batch_size=16, seed=0, epoch=0)
    padded = sum(int(lengths[u].max()) * len(u) for u in updates)
    assert padded / lengths.sum() < 1.05  # random batches pad 1.7 times the tokens


def test_a_text_over_the_budget_stands_alone() -> None:
    assert micro_batches(np.array([3, 50, 3]), [0, 1, 2], budget=10) == [[0], [1], [2]]


def test_collate_pads_on_the_right_and_masks_it() -> None:
    rows = [np.array([2, 5, 3], dtype=np.int32), np.array([2, 3], dtype=np.int32)]
    batch = collate(rows, pad=9)
    assert batch.input_ids.tolist() == [[2, 5, 3], [2, 3, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    wider = collate(rows, pad=9, length=4)
    assert wider.input_ids.tolist() == [[2, 5, 3, 9], [2, 3, 9, 9]]
    assert wider.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
