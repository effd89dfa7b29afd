import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lora_core.data import tokens
from lora_core.data.tokens import (
    build_special_tokens_map,
    check_tokenizer_adds_special_tokens,
    load_tokenizer,
    tokenize_texts,
    tokenize_with_cache,
    truncate_ids,
)
from lora_core.errors.base_model import SpecialTokensNotAdded, UnreadableBase
from lora_core.inference.tokenization import ModelTokenizer
from tests import tiny_base

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
def transformers_tokenizer(tokenizer_file: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tokenizer_file.parent)
    return loaded


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    return tmp_path / "tokens"


@pytest.mark.parametrize("max_length", [8, 20, 512])
def test_ids_match_transformers(
    tokenizer: Tokenizer,
    transformers_tokenizer: PreTrainedTokenizerBase,
    cache_folder: Path,
    max_length: int,
) -> None:
    made = tokenize_with_cache(tokenizer, TEXTS, max_length)
    expected = transformers_tokenizer(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert [ids.tolist() for ids in made] == expected
    assert made.truncated == sum(
        len(ids) > max_length for ids in transformers_tokenizer(TEXTS)["input_ids"]
    )
    assert made.lengths.tolist() == [len(ids) for ids in expected]
    assert made.ids.dtype == np.dtype(np.int32)
    assert made.offsets.dtype == np.dtype(np.int64)


@settings(max_examples=50)
@given(text=st.text(max_size=60), max_length=st.integers(3, 30))
def test_truncation_matches_transformers(
    tokenizer: Tokenizer,
    transformers_tokenizer: PreTrainedTokenizerBase,
    text: str,
    max_length: int,
) -> None:
    ours = truncate_ids(tokenizer.encode(text).ids, max_length)
    assert (
        list(ours)
        == transformers_tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    )


def test_slice_of_tokenized_texts(tokenizer: Tokenizer, cache_folder: Path) -> None:
    made = tokenize_with_cache(tokenizer, TEXTS, 20)
    assert len(made) == len(TEXTS)
    assert [ids.tolist() for ids in made[1:3]] == [made[1].tolist(), made[2].tolist()]
    assert made[-1].tolist() == made[len(TEXTS) - 1].tolist()
    with pytest.raises(IndexError):
        made[len(TEXTS)]


def test_tokenize_no_texts(tokenizer: Tokenizer, cache_folder: Path) -> None:
    assert len(tokenize_with_cache(tokenizer, [], 20)) == 0


def test_tokenized_texts_are_cached(
    tokenizer: Tokenizer, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tokenize_with_cache(tokenizer, TEXTS, 20)
    (entry,) = cache_folder.iterdir()
    os.utime(entry, (1000, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "tokenize_texts", None)
        again = tokenize_with_cache(tokenizer, TEXTS, 20)
    assert [a.tolist() for a in again] == [b.tolist() for b in made]
    assert again.truncated == made.truncated
    assert entry.stat().st_mtime > 1000
    tokenize_with_cache(tokenizer, TEXTS, 21)
    tokenize_with_cache(tokenizer, ["".join(TEXTS)], 20)
    tokenize_with_cache(tokenizer, TEXTS[::-1], 20)
    assert len(list(cache_folder.iterdir())) == 4


def test_cache_key_includes_the_tokenizer(tokenizer: Tokenizer, cache_folder: Path) -> None:
    changed = Tokenizer.from_str(tokenizer.to_str())
    changed.add_tokens(["film"])
    ours = tokenize_with_cache(tokenizer, ["a filmmaker"], 20)
    other = tokenize_with_cache(changed, ["a filmmaker"], 20)
    assert ours[0].tolist() != other[0].tolist()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 200])
def test_damaged_cache_entry_is_recomputed(
    tokenizer: Tokenizer, cache_folder: Path, damage: bytes
) -> None:
    made = tokenize_with_cache(tokenizer, TEXTS, 20)
    (entry,) = cache_folder.iterdir()
    entry.write_bytes(damage)
    assert tokenize_with_cache(tokenizer, TEXTS, 20).ids.tolist() == made.ids.tolist()


def test_cache_size_is_limited(
    tokenizer: Tokenizer, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_CACHE_BYTES", 1000)
    for length in range(8, 20):
        tokenize_with_cache(tokenizer, TEXTS, length)
    assert 1 <= len(list(cache_folder.iterdir())) <= 3
    assert sum(path.stat().st_size for path in cache_folder.iterdir()) <= 1000


def test_few_characters_are_tokenized_at_a_time(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenizer.encode_batch_fast(TEXTS)
    monkeypatch.setattr(tokens, "CHUNK_CHARACTERS", 20)
    chunks: list[list[str]] = []

    class Recorder:
        def encode_batch_fast(self, texts: list[str]) -> list[Encoding]:
            chunks.append(texts)
            return tokenizer.encode_batch_fast(texts)

    recorder: Any = Recorder()
    tokenized = tokenize_texts(recorder, TEXTS, 512)
    encoded = ModelTokenizer(recorder, 512).encode([text for text in TEXTS if text.strip()])
    assert [ids.tolist() for ids in tokenized] == [each.ids for each in whole]
    assert [each.ids for each in encoded] == [each.ids for each in whole]
    assert [text for chunk in chunks for text in chunk] == TEXTS * 2
    assert all(sum(map(len, chunk[:-1])) < 20 for chunk in chunks)


@pytest.mark.parametrize("content", [None, b"{}", b"\xff"])
def test_missing_or_invalid_tokenizer_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UnreadableBase, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "modernbert"])
def test_special_tokens_of_known_tokenizers(family: str) -> None:
    bert = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}
    roberta = {"<unk>", "</s>", "<pad>", "<s>", "<mask>"}
    expected = bert if family in ("bert", "modernbert") else roberta
    assert set(build_special_tokens_map(tiny_base.tokenizer(family)).values()) == expected


def test_special_tokens_are_those_that_the_tokenizer_adds() -> None:
    """In mmBERT, which has Gemma's vocabulary, <s> is HTML for struck out text."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<s>", "</s>"]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(special)}, "<unk>"))
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> $B <eos>",
        special_tokens=[("<bos>", 2), ("<eos>", 1)],
    )  # fmt: skip
    assert build_special_tokens_map(tokenizer) == {
        "unk_token": "<unk>",
        "sep_token": "<eos>",
        "pad_token": "<pad>",
        "cls_token": "<bos>",
        "mask_token": "<mask>",
    }


@pytest.mark.parametrize("template", ["[CLS] [MASK] $A", "[CLS] [MASK] $A [SEP]", "[CLS] $A", "$A"])
def test_special_tokens_must_surround_a_text(tokenizer_file: Path, template: str) -> None:
    tokenizer = load_tokenizer(tokenizer_file)
    check_tokenizer_adds_special_tokens(tokenizer, "base")
    names = ("[CLS]", "[MASK]", "[SEP]")
    tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[(each, tokenizer.token_to_id(each)) for each in names]
    )
    with pytest.raises(SpecialTokensNotAdded, match="'base'"):
        check_tokenizer_adds_special_tokens(tokenizer, "base")
