"""Validate the SentencePiece character map of a `Precompiled` normalizer before it is used.

The map consists of four bytes of length, a trie over bytes, and the replacements, each terminated
by NUL. The trie is a double array (darts-clone) of four-byte units: 8 bits of label, a bit that
marks the end of a key, and an offset. The position of a child is the position of its parent xor the
parent's offset xor the child's label. The value of a key is where the child with label 0 would be.
"""

import binascii
from base64 import b64decode

import numpy as np
from numpy.typing import NDArray

from lora_core.errors.artifact import UnsupportedTokenizer

MAX_BYTES = 1_000_000  # the map of `nmt_nfkc` has 240,007
MAX_KEY_BYTES = 64
_CHUNK_NODES = 4096  # nodes processed at a time
_LEAF = 1 << 31
_HAS_LEAF = 1 << 8

Units = NDArray[np.uint32]
Positions = NDArray[np.int64]


def max_expansion(encoded: str) -> float:
    """Return the maximum number of characters per input byte over all keys. Raises
    `UnsupportedTokenizer`."""
    try:
        content = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid() from error
    size = int.from_bytes(content[:4], "little")
    if len(content) > MAX_BYTES or size < 4 or size % 4 or 4 + size > len(content):
        raise _invalid()
    units = np.frombuffer(content, "<u4", count=size // 4, offset=4)
    replacements = content[4 + size :]
    replacement_bytes = np.frombuffer(replacements, np.uint8)
    ends = np.flatnonzero(replacement_bytes == 0)
    is_character_start = (replacement_bytes & 0xC0) != 0x80
    # Characters before each byte.
    characters_before = np.cumsum(is_character_start) - is_character_start
    largest = 0.0
    for length, starts in _replacement_offsets(units):
        end_indices = np.searchsorted(ends, starts)
        if (end_indices == len(ends)).any() or ((replacement_bytes[starts] & 0xC0) == 0x80).any():
            raise _invalid()  # unterminated, or starting inside a character
        counts = characters_before[ends[end_indices]] - characters_before[starts]
        largest = max(largest, float(counts.max()) / length)
    return largest


def _replacement_offsets(units: Units) -> "list[tuple[int, Positions]]":
    """Return, by key length, the offsets of the replacements of all keys."""
    nodes: Positions = np.zeros(1, dtype=np.int64)
    keys: list[tuple[int, Positions]] = []
    remaining_nodes = 4 * len(units)  # `nmt_nfkc` has 44,800 units and 39,000 nodes
    for length in range(1, MAX_KEY_BYTES + 1):
        child_chunks = [
            _children(units, nodes[i : i + _CHUNK_NODES])
            for i in range(0, len(nodes), _CHUNK_NODES)
        ]
        nodes = np.unique(np.concatenate(child_chunks))
        remaining_nodes -= len(nodes)
        if not len(nodes):
            return keys
        if remaining_nodes < 0:
            break
        ending = nodes[(units[nodes] & _HAS_LEAF) != 0]
        values = ending ^ _offset(units[ending])
        if (values >= len(units)).any():
            break
        if len(values):
            keys.append((length, (units[values] & ~np.uint32(_LEAF)).astype(np.int64)))
    raise _invalid()  # cyclic, or pointing outside of the trie


def _children(units: Units, nodes: Positions) -> Positions:
    labels = np.arange(1, 256)
    positions = (nodes ^ _offset(units[nodes]))[:, None] ^ labels
    inside = positions < len(units)
    child_units = units[np.where(inside, positions, 0)]
    children: Positions = positions[inside & ((child_units & (_LEAF | 0xFF)) == labels)]
    return children


def _offset(units: Units) -> Positions:
    """Return the offsets. Bit 9 marks an offset in units of 256."""
    units_64 = units.astype(np.int64)
    return (units_64 >> 10) << ((units_64 & (1 << 9)) >> 6)


def _invalid() -> UnsupportedTokenizer:
    return UnsupportedTokenizer(problem="its character map (precompiled_charsmap) is invalid")
