"""Texts to token ids, once: the result stays on disk."""

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

from lora_core.atomic_files import new_entry
from lora_core.cache import cache_dir, keep_below
from lora_core.errors.base import BrokenBase, NoSpecialTokens
from lora_core.rust_panics import contained

FORMAT = "1"  # raise it when the same texts would give other ids
LIMIT = 2_000_000_000  # bytes of all entries
CHUNK = 1_000  # texts tokenised at a time
SPECIAL = {  # what transformers calls their use, and the names they have with WordPiece and BPE
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class Tokens(Sequence[NDArray[np.int32]]):
    """The ids of each text. In memory they follow each other in one array."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]  # (texts + 1,); text i is ids[offsets[i]:offsets[i + 1]]
    truncated: int  # texts that were cut

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, special ones included."""
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
    """A `tokenizer.json`, with cutting and padding off. Raises `BrokenBase`."""
    try:
        with contained():
            tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BrokenBase(base=file.parent.name, reason=f"it has no {file.name}") from error
    except Exception as error:  # the library raises nothing more precise
        raise BrokenBase(base=file.parent.name, reason=f"{file.name} is not readable") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_ends(tokenizer: Tokenizer, base: str) -> None:
    """Raises `NoSpecialTokens` unless a text gets one before and one after it.

    Else the first word of a text would be what the head reads, and `cut` would keep the last.
    """
    if len(tokenizer.encode("").ids) < 2:
        raise NoSpecialTokens(base=base)


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Those it has, by their use."""
    found: dict[str, str] = {}
    for use, names in SPECIAL.items():
        if has := [name for name in names if tokenizer.token_to_id(name) is not None]:
            found[use] = has[0]
    return found


def cut(ids: Sequence[int], max_length: int) -> Sequence[int]:
    """The first `max_length` - 1 ids and the last, which is the closing special token."""
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Tokens:
    """The ids of texts, [CLS] and [SEP] included.

    Made once for the same tokenizer, texts and length. Raises `DiskFull`.
    """
    path = cache_dir() / "tokens" / f"{_key(tokenizer, texts, max_length)}.safetensors"
    found = _read(path, len(texts))
    if found is None:
        found = _encode(tokenizer, texts, max_length)
        with new_entry(path) as unfinished:
            save_file(
                {"ids": found.ids, "offsets": found.offsets},
                unfinished,
                metadata={"truncated": str(found.truncated)},
            )
        keep_below(path.parent, LIMIT)
    return found


def _key(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> str:
    digest = hashlib.sha256(f"{FORMAT}\0{max_length}\0{tokenizer.to_str()}".encode())
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Tokens:
    parts: list[NDArray[np.int32]] = []
    truncated = 0
    for start in range(0, len(texts), CHUNK):
        for encoding in tokenizer.encode_batch_fast(list(texts[start : start + CHUNK])):
            kept = cut(encoding.ids, max_length)
            truncated += len(encoding.ids) > max_length
            parts.append(np.array(kept, dtype=np.int32))
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    return Tokens(ids, offsets, truncated)


def _read(path: Path, texts: int) -> Tokens | None:
    """An entry, its time of use renewed; None if it is not there or damaged."""
    try:
        with safe_open(path, framework="np") as file:
            ids, offsets = file.get_tensor("ids"), file.get_tensor("offsets")
            truncated = int(file.metadata()["truncated"])
        os.utime(path)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    sound = len(offsets) == texts + 1 and offsets[-1] == len(ids)
    return Tokens(ids, offsets, truncated) if sound else None
