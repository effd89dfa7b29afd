"""Tokenize texts, with a cache on disk; one split of the data, tokenized."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from lora_core.atomic_files import atomic_entry
from lora_core.cache import cache_dir, evict_least_recently_used
from lora_core.data.targets import Targets
from lora_core.errors.base_model import SpecialTokensNotAdded, UnreadableBase
from lora_core.rust_panics import convert_panics
from lora_core.specs.data import Split

CACHE_VERSION = "1"  # increment if the same texts would give different ids
MAX_CACHE_BYTES = 2_000_000_000  # of all cache entries
CHUNK_TEXTS = 1_000  # texts tokenized at a time
SPECIAL_TOKEN_NAMES = {  # role in transformers -> names in WordPiece and BPE vocabularies
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class RaggedTokenIds(Sequence[NDArray[np.int32]]):
    """Token ids of texts, concatenated in one array."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]  # (texts + 1,); text i is ids[offsets[i]:offsets[i + 1]]
    truncated: int  # number of truncated texts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, including special tokens."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, i: slice) -> list[NDArray[np.int32]]: ...
    def __getitem__(self, i: int | slice) -> NDArray[np.int32] | list[NDArray[np.int32]]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        i = range(len(self))[i]
        return self.ids[self.offsets[i] : self.offsets[i + 1]]


def load_tokenizer(file: Path) -> Tokenizer:
    """Load a `tokenizer.json`, with truncation and padding off. Raises `UnreadableBase`."""
    try:
        with convert_panics():
            tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnreadableBase(base=file.parent.name, reason=f"it has no {file.name}") from error
    except Exception as error:  # `tokenizers` raises plain `Exception`
        raise UnreadableBase(
            base=file.parent.name, reason=f"{file.name} is not readable"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_special_tokens(tokenizer: Tokenizer, base: str) -> None:
    """Raise `SpecialTokensNotAdded` unless the tokenizer adds one before and one after a text.

    Without them the head would read the first word of a text, and `truncate_ids` would keep the
    last.
    """
    if len(tokenizer.encode("").ids) < 2:
        raise SpecialTokensNotAdded(base=base)


def find_special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the special tokens of a tokenizer by their role in transformers."""
    tokens: dict[str, str] = {}
    for role, names in SPECIAL_TOKEN_NAMES.items():
        if present := [name for name in names if tokenizer.token_to_id(name) is not None]:
            tokens[role] = present[0]
    return tokens


def truncate_ids(ids: Sequence[int], max_length: int) -> Sequence[int]:
    """Return the first `max_length` - 1 ids and the last one, the closing special token."""
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> RaggedTokenIds:
    """Return the ids of texts, including [CLS] and [SEP].

    The result is cached by tokenizer, texts and length. Raises `DiskFull`.
    """
    path = cache_dir() / "tokens" / f"{_cache_key(tokenizer, texts, max_length)}.safetensors"
    tokenized = _read_cached(path, len(texts))
    if tokenized is None:
        tokenized = _encode(tokenizer, texts, max_length)
        with atomic_entry(path) as unfinished:
            save_file(
                {"ids": tokenized.ids, "offsets": tokenized.offsets},
                unfinished,
                metadata={"truncated": str(tokenized.truncated)},
            )
        evict_least_recently_used(path.parent, MAX_CACHE_BYTES)
    return tokenized


def _cache_key(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> str:
    digest = hashlib.sha256(f"{CACHE_VERSION}\0{max_length}\0{tokenizer.to_str()}".encode())
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> RaggedTokenIds:
    encoded_texts: list[NDArray[np.int32]] = []
    truncated = 0
    for start in range(0, len(texts), CHUNK_TEXTS):
        for encoding in tokenizer.encode_batch_fast(list(texts[start : start + CHUNK_TEXTS])):
            ids_of_text = truncate_ids(encoding.ids, max_length)
            truncated += len(encoding.ids) > max_length
            encoded_texts.append(np.array(ids_of_text, dtype=np.int32))
    offsets = np.zeros(len(encoded_texts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in encoded_texts], out=offsets[1:])
    ids = np.concatenate(encoded_texts) if encoded_texts else np.zeros(0, dtype=np.int32)
    return RaggedTokenIds(ids, offsets, truncated)


def _read_cached(path: Path, texts: int) -> RaggedTokenIds | None:
    """Return a cache entry and update its access time; None if it is missing or damaged."""
    try:
        with safe_open(path, framework="np") as file:
            ids, offsets = file.get_tensor("ids"), file.get_tensor("offsets")
            truncated = int(file.metadata()["truncated"])
        os.utime(path)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    consistent = len(offsets) == texts + 1 and offsets[-1] == len(ids)
    return RaggedTokenIds(ids, offsets, truncated) if consistent else None


@dataclass(frozen=True)
class TokenizedSplit:
    """Token ids and targets of the texts of one split, in a fixed order."""

    split: Split
    ids: Sequence[NDArray[np.int32]]
    lengths: NDArray[np.int64]  # tokens of each text
    targets: Targets
    pad_id: int  # id of the padding token

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, indices: NDArray[np.int64]) -> "TokenizedSplit":
        """The texts with these indices."""
        ids = [self.ids[i] for i in indices]
        return TokenizedSplit(
            self.split, ids, self.lengths[indices], self.targets[indices], self.pad_id
        )

    def take(self, n: int) -> "TokenizedSplit":
        """The first n texts."""
        return TokenizedSplit(
            self.split, self.ids[:n], self.lengths[:n], self.targets[:n], self.pad_id
        )
