"""Tokenize texts, with a cache on disk; one split of the data, tokenized."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Encoding, Tokenizer

from lora_core.atomic_files import atomic_path
from lora_core.cache import FOLDER_LIMITS, cache_dir, evict_least_recently_used
from lora_core.data.windows import split_into_windows
from lora_core.errors.base_model import PairsNotSeparated, SpecialTokensNotAdded, UnreadableBase
from lora_core.rust_panics import convert_panics
from lora_core.specs.data import Split
from lora_core.specs.predict import TruncationSide
from lora_core.specs.text_input import TextInput, count_characters
from lora_core.tasks.targets import Targets

CACHE_VERSION = "1"  # increment if the same texts would give different ids
MAX_CACHE_BYTES = FOLDER_LIMITS["tokens"]
# Texts and characters tokenized at a time: a token takes far more memory than its characters.
CHUNK_TEXTS, CHUNK_CHARACTERS = 1_000, 1_000_000
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
    # (texts,) index of the first token of the second segment (token type 1); the length of the text
    # if it has none. None: the texts are not pairs.
    segment_starts: NDArray[np.int64] | None = None

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


def check_tokenizer_adds_special_tokens(
    tokenizer: Tokenizer, base: str, *, pairs: bool = False
) -> None:
    """Raise `SpecialTokensNotAdded` unless the tokenizer adds one before and one after a text.

    Without them the head would read the first word of a text, and `truncate_ids` and windows would
    keep the last. For `pairs` it must also separate the two texts: else raise `PairsNotSeparated`.
    """
    is_special = tokenizer.encode("a").special_tokens_mask
    if sum(is_special) != 2 or not (is_special[0] and is_special[-1]):
        raise SpecialTokensNotAdded(base=base)
    if pairs and len(tokenizer.encode("", "").ids) <= 2:
        raise PairsNotSeparated(base=base)


def build_special_tokens_map(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the special tokens of a tokenizer by their role in transformers.

    Those around a text are the ones that it adds, whatever their names: `<s>` in the vocabulary of
    Gemma, which mmBERT has, is HTML.
    """
    tokens: dict[str, str] = {}
    for role, names in SPECIAL_TOKEN_NAMES.items():
        if present := [name for name in names if tokenizer.token_to_id(name) is not None]:
            tokens[role] = present[0]
    if len(added := tokenizer.encode("").tokens) >= 2:
        tokens |= {"cls_token": added[0], "sep_token": added[-1]}
    return tokens


def truncate_ids(ids: Sequence[int], max_length: int) -> Sequence[int]:
    """Return the first `max_length` - 1 ids and the last one, the closing special token."""
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def indices_after_longest_first_truncation(
    sequence_ids: Sequence[int | None], max_length: int, side: TruncationSide = "right"
) -> list[int]:
    """Return the indices of the tokens of a pair that remain after truncation to `max_length`.

    Tokens are taken from the longer text, until both are of the same length: the strategy
    `longest_first` of transformers. `sequence_ids`: 0 or 1 for each token of the first or the
    second text, None for special tokens, which all remain.
    """
    first, second = ([i for i, text in enumerate(sequence_ids) if text == n] for n in (0, 1))
    room = max(0, max_length - (len(sequence_ids) - len(first) - len(second)))
    shorter = min(len(first), len(second), room // 2)
    counts = (shorter, room - shorter) if len(first) <= len(second) else (room - shorter, shorter)
    kept = {
        i
        for text, count in zip((first, second), counts, strict=True)
        for i in (text[:count] if side == "right" else text[max(0, len(text) - count) :])
    }
    return [i for i, text in enumerate(sequence_ids) if text is None or i in kept]


def find_second_segment_start(type_ids: Sequence[int]) -> int | None:
    """Return the index of the first token of the second segment; None if there is none."""
    return type_ids.index(1) if 1 in type_ids else None


def truncate_pair_ids(
    encoding: Encoding, max_length: int, side: TruncationSide = "right"
) -> tuple[Sequence[int], int | None]:
    """Return the ids of a pair, truncated to `max_length`, and where its second segment begins."""
    ids, types = encoding.ids, encoding.type_ids
    if len(ids) > max_length:
        kept = indices_after_longest_first_truncation(encoding.sequence_ids, max_length, side)
        ids, types = [ids[i] for i in kept], [types[i] for i in kept]
    return ids, find_second_segment_start(types)


def chunk_texts(texts: Iterable[TextInput]) -> Iterator[list[TextInput]]:
    """Yield the texts, in lists that are short enough to be tokenized at a time."""
    chunk: list[TextInput] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += count_characters(text)
        if size >= CHUNK_CHARACTERS or len(chunk) == CHUNK_TEXTS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def tokenize_with_cache(
    tokenizer: Tokenizer, texts: Sequence[TextInput], max_length: int
) -> RaggedTokenIds:
    """Return the ids of texts, or of pairs of texts, including [CLS] and [SEP].

    The result is cached by tokenizer, texts and length. Raises `DiskFull`.
    """
    path = cache_dir() / "tokens" / f"{_cache_key(tokenizer, texts, max_length)}.safetensors"
    tokenized = _read_cached(path, len(texts))
    if tokenized is None:
        tokenized = tokenize_texts(tokenizer, texts, max_length)
        with atomic_path(path) as unfinished:
            arrays: dict[str, NDArray[Any]] = {
                "ids": tokenized.ids,
                "offsets": tokenized.offsets,
            }
            if tokenized.segment_starts is not None:
                arrays["segment_starts"] = tokenized.segment_starts
            save_file(arrays, unfinished, metadata={"truncated": str(tokenized.truncated)})
        evict_least_recently_used(path.parent, MAX_CACHE_BYTES)
    return tokenized


def _cache_key(tokenizer: Tokenizer, texts: Sequence[TextInput], max_length: int) -> str:
    version = f"{CACHE_VERSION} pairs" if _are_pairs(texts) else CACHE_VERSION
    digest = hashlib.sha256(f"{version}\0{max_length}\0{tokenizer.to_str()}".encode())
    for text in chain.from_iterable([text] if isinstance(text, str) else text for text in texts):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _are_pairs(texts: Sequence[TextInput]) -> bool:
    return bool(texts) and not isinstance(texts[0], str)


def tokenize_texts(
    tokenizer: Tokenizer, texts: Sequence[TextInput], max_length: int
) -> RaggedTokenIds:
    """Like `tokenize_with_cache`, without the cache."""
    encoded_texts: list[NDArray[np.int32]] = []
    segment_starts: list[int] = []
    truncated = 0
    pairs = _are_pairs(texts)
    for chunk in chunk_texts(texts):
        for encoding in tokenizer.encode_batch_fast(chunk):
            too_long = len(encoding.ids) > max_length
            truncated += too_long
            if pairs:
                ids_of_text, segment_start = truncate_pair_ids(encoding, max_length)
                segment_starts.append(len(ids_of_text) if segment_start is None else segment_start)
            else:
                ids_of_text = truncate_ids(encoding.ids, max_length)
            encoded_texts.append(np.array(ids_of_text, dtype=np.int32))
    offsets = np.zeros(len(encoded_texts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in encoded_texts], out=offsets[1:])
    ids = np.concatenate(encoded_texts) if encoded_texts else np.zeros(0, dtype=np.int32)
    starts = np.array(segment_starts, dtype=np.int64) if pairs else None
    return RaggedTokenIds(ids, offsets, truncated, starts)


def _read_cached(path: Path, texts: int) -> RaggedTokenIds | None:
    """Return a cache entry and update its access time; None if it is missing or damaged."""
    try:
        with safe_open(path, framework="np") as file:
            ids, offsets = file.get_tensor("ids"), file.get_tensor("offsets")
            truncated = int(file.metadata()["truncated"])
            has_segments = "segment_starts" in set(file.keys())
            starts = file.get_tensor("segment_starts") if has_segments else None
        os.utime(path)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    consistent = len(offsets) == texts + 1 and offsets[-1] == len(ids)
    return RaggedTokenIds(ids, offsets, truncated, starts) if consistent else None


@dataclass(frozen=True)
class TokenizedSplit:
    """Token ids and targets of the texts of one split, or of its pairs, in a fixed order.

    If long texts are read in windows, `windows` has the windows of all texts, one text after the
    other, and `window_counts` (texts,) their number per text.
    """

    split: Split
    ids: Sequence[NDArray[np.int32]]
    lengths: NDArray[np.int64]  # tokens that are computed of each text
    targets: Targets
    pad_id: int  # id of the padding token
    # (texts,) as in `RaggedTokenIds`, for pairs if the model has segments
    segment_starts: NDArray[np.int64] | None = None
    windows: "TokenizedSplit | None" = None
    window_counts: NDArray[np.int64] | None = None

    def in_windows(self, max_length: int) -> "TokenizedSplit":
        """Return the split with its texts in windows of `max_length` tokens."""
        of_texts = [split_into_windows(ids.tolist(), max_length) for ids in self.ids]
        counts = np.array([len(windows) for windows in of_texts], dtype=np.int64)
        ids = [np.array(window, dtype=np.int32) for windows in of_texts for window in windows]
        lengths = np.array([len(window) for window in ids], dtype=np.int64)
        windows = TokenizedSplit(
            self.split, ids, lengths, np.repeat(self.targets, counts, axis=0), self.pad_id
        )
        ends = np.cumsum(counts)
        totals = np.array(
            [lengths[end - count : end].sum() for end, count in zip(ends, counts, strict=True)],
            dtype=np.int64,
        )
        return replace(self, lengths=totals, windows=windows, window_counts=counts)

    def window_indices(self, indices: Sequence[int] | NDArray[np.int64]) -> list[int]:
        """Return the indices in `windows` of the windows of these texts, text by text."""
        firsts = self._first_windows
        return [window for i in indices for window in range(firsts[i], firsts[i + 1])]

    @cached_property
    def _first_windows(self) -> list[int]:
        """The index of the first window of each text, and at last the number of windows."""
        assert self.window_counts is not None  # noqa: S101
        return [0, *np.cumsum(self.window_counts).tolist()]

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, indices: NDArray[np.int64]) -> "TokenizedSplit":
        """The texts with these indices."""
        return replace(
            self,
            ids=[self.ids[i] for i in indices],
            lengths=self.lengths[indices],
            targets=self.targets[indices],
            segment_starts=None if self.segment_starts is None else self.segment_starts[indices],
            **self._selected_windows(indices),
        )

    def _selected_windows(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        if self.windows is None or self.window_counts is None:
            return {}
        of_texts = np.array(self.window_indices(indices), dtype=np.int64)
        return {
            "windows": self.windows.select(of_texts),
            "window_counts": self.window_counts[indices],
        }

    def first_texts(self, n: int) -> "TokenizedSplit":
        """The first n texts."""
        return self.select(np.arange(min(n, len(self))))
