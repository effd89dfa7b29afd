"""Windows of long texts, against transformers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lora_core.data.load import load_splits
from lora_core.data.tokens import TokenizedSplit
from lora_core.data.windows import (
    MAX_WINDOWS,
    max_tokens_read,
    mean_tokens_computed,
    split_into_windows,
    window_overlap,
)
from lora_core.errors.artifact import InputTooLong
from lora_core.errors.spec import PairsInWindowsUnsupported
from lora_core.inference.tokenization import ModelTokenizer
from lora_core.specs.data import DataSpec, Split
from tests.tiny_base import tokenizer

FAMILIES = {family: tokenizer(family) for family in ("distilbert", "roberta")}


@pytest.mark.parametrize("family", FAMILIES)
@given(words=st.integers(1, 120), max_length=st.integers(8, 24))
def test_windows_are_those_of_transformers(family: str, words: int, max_length: int) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer(family))
    text = " ".join(["a", "film", "was", "good", "and", "dull"][i % 6] for i in range(words))
    expected = plain(
        text,
        truncation=True,
        max_length=max_length,
        stride=window_overlap(max_length),
        return_overflowing_tokens=True,
    )["input_ids"]
    [ours] = ModelTokenizer(FAMILIES[family], max_length, windows=True).encode([text])
    assert [list(window.ids) for window in ours.windows] == expected[:MAX_WINDOWS]
    assert ours.truncated == (len(expected) > MAX_WINDOWS)
    assert ours.length == sum(map(len, expected[:MAX_WINDOWS]))


def test_longest_text_fills_the_last_window() -> None:
    for max_length in (8, 9, 64, 511, 512):
        longest = max_tokens_read(max_length, "windows")
        windows = split_into_windows(range(longest), max_length)
        assert [len(windows), len(windows[-1])] == [MAX_WINDOWS, max_length]
        assert len(split_into_windows(range(longest + 1), max_length)) == MAX_WINDOWS + 1
    assert max_tokens_read(512, "cut") == 512


def test_text_longer_than_all_windows_is_truncated_at_either_side() -> None:
    model_tokenizer = ModelTokenizer(FAMILIES["distilbert"], 8, windows=True)
    text = "good " * 200 + "bad " * 200
    [right], [left] = (
        model_tokenizer.encode([text], side="right"),
        model_tokenizer.encode([text], side="left"),
    )
    assert (right.truncated, left.truncated) == (True, True)
    assert right.windows[-1].ids[1] != left.windows[-1].ids[1]
    with pytest.raises(InputTooLong):
        model_tokenizer.encode([text], truncate=False)


def test_split_keeps_the_windows_of_selected_texts() -> None:
    ids = [np.arange(n, dtype=np.int32) for n in (5, 30, 8, 17)]
    lengths = np.array([len(each) for each in ids])
    data = TokenizedSplit(Split.TRAIN, ids, lengths, np.arange(4), pad_id=0).in_windows(8)
    assert data.windows is not None
    assert data.window_counts is not None
    assert data.window_counts.tolist() == [
        len(split_into_windows(each.tolist(), 8)) for each in ids
    ]
    assert data.lengths.sum() == data.windows.lengths.sum()
    chosen = data.select(np.array([3, 1]))
    assert chosen.windows is not None
    assert chosen.window_counts is not None
    assert [each.tolist() for each in chosen.windows.ids] == [
        *split_into_windows(ids[3].tolist(), 8),
        *split_into_windows(ids[1].tolist(), 8),
    ]
    assert chosen.window_indices([1]) == list(
        range(chosen.window_counts[0], chosen.window_counts.sum())
    )


def test_pairs_have_no_windows() -> None:
    with pytest.raises(PairsInWindowsUnsupported):
        load_splits(DataSpec(text_pair_column="second", long_texts="windows"))


def test_cost_counts_the_overlap() -> None:
    windows, cut = DataSpec(long_texts="windows"), DataSpec()
    assert mean_tokens_computed(1000, cut, 512) == 512
    assert 1300 < mean_tokens_computed(1000, windows, 512) < 1350
    assert mean_tokens_computed(100, windows, 512) == 100
