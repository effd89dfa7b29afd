import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lora_core.data import tokens
from lora_core.data.tokens import cut, load_tokenizer, tokenise
from lora_core.errors.base import BrokenBase

TEXTS = [
    "A film.",
    "Crème brûlée, 東京!",
    "\u200b",
    "word " * 40,
    "[SEP] is not a separator [MASK]",
]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_file)


@pytest.fixture(scope="module")
def theirs(tokenizer_file: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tokenizer_file.parent)
    return loaded


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    return tmp_path / "tokens"


@pytest.mark.parametrize("max_length", [8, 20, 512])
def test_ids_equal_those_of_transformers(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerBase, store: Path, max_length: int
) -> None:
    made = tokenise(tokenizer, TEXTS, max_length)
    expected = theirs(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert [ids.tolist() for ids in made] == expected
    assert made.truncated == sum(len(ids) > max_length for ids in theirs(TEXTS)["input_ids"])
    assert made.lengths.tolist() == [len(ids) for ids in expected]
    assert made.ids.dtype == np.dtype(np.int32)
    assert made.offsets.dtype == np.dtype(np.int64)


@settings(max_examples=50)
@given(text=st.text(max_size=60), max_length=st.integers(3, 30))
def test_any_text_is_cut_like_transformers_does(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerBase, text: str, max_length: int
) -> None:
    ours = cut(tokenizer.encode(text).ids, max_length)
    assert list(ours) == theirs(text, truncation=True, max_length=max_length)["input_ids"]


def test_a_slice_holds_the_ids_of_those_texts(tokenizer: Tokenizer, store: Path) -> None:
    made = tokenise(tokenizer, TEXTS, 20)
    assert len(made) == len(TEXTS)
    assert [ids.tolist() for ids in made[1:3]] == [made[1].tolist(), made[2].tolist()]
    assert made[-1].tolist() == made[len(TEXTS) - 1].tolist()
    with pytest.raises(IndexError):
        made[len(TEXTS)]


def test_no_text_is_no_ids(tokenizer: Tokenizer, store: Path) -> None:
    assert len(tokenise(tokenizer, [], 20)) == 0


def test_it_is_done_once(
    tokenizer: Tokenizer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenise(tokenizer, TEXTS, 20)
    (entry,) = store.iterdir()
    os.utime(entry, (1000, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "_encode", None)
        again = tokenise(tokenizer, TEXTS, 20)
    assert [a.tolist() for a in again] == [b.tolist() for b in made]
    assert again.truncated == made.truncated
    assert entry.stat().st_mtime > 1000
    tokenise(tokenizer, TEXTS, 21)
    tokenise(tokenizer, ["".join(TEXTS)], 20)
    tokenise(tokenizer, TEXTS[::-1], 20)
    assert len(list(store.iterdir())) == 4


def test_another_tokenizer_has_an_entry_of_its_own(tokenizer: Tokenizer, store: Path) -> None:
    changed = Tokenizer.from_str(tokenizer.to_str())
    changed.add_tokens(["film"])
    ours = tokenise(tokenizer, ["a filmmaker"], 20)
    other = tokenise(changed, ["a filmmaker"], 20)
    assert ours[0].tolist() != other[0].tolist()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 200])
def test_a_damaged_entry_is_made_anew(tokenizer: Tokenizer, store: Path, damage: bytes) -> None:
    made = tokenise(tokenizer, TEXTS, 20)
    (entry,) = store.iterdir()
    entry.write_bytes(damage)
    assert tokenise(tokenizer, TEXTS, 20).ids.tolist() == made.ids.tolist()


def test_the_cache_stays_within_its_bound(
    tokenizer: Tokenizer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LIMIT", 1000)
    for length in range(8, 20):
        tokenise(tokenizer, TEXTS, length)
    assert 1 <= len(list(store.iterdir())) <= 3
    assert sum(path.stat().st_size for path in store.iterdir()) <= 1000


@pytest.mark.parametrize("content", [None, b"{}", b"\xff"])
def test_a_base_without_a_fast_tokenizer_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BrokenBase, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")
