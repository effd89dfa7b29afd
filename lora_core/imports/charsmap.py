"""The character map of SentencePiece that a `Precompiled` normalizer holds, before it is used.

Four bytes of length, a trie over bytes, and the replacements, each with a NUL behind it. The trie
is a double array (darts-clone) of units of four bytes: 8 bits of label, a bit that says that a key
ends here, and an offset. The children of a node lie at its own place xor its offset xor their
label, and the value of a key where the child with label 0 would be.
"""

import binascii
from base64 import b64decode

import numpy as np
from numpy.typing import NDArray

from lora_core.errors.artifact import TokenizerUnfit

BYTES = 1_000_000  # that of `nmt_nfkc` has 240,007
LONGEST_KEY = 64  # bytes
_CHUNK = 4096  # nodes looked at together
_LEAF = 1 << 31
_ENDS = 1 << 8

Units = NDArray[np.uint32]
Places = NDArray[np.int64]


def growth(encoded: str) -> float:
    """Letters that it makes of one byte at most, over all of its keys. Raises `TokenizerUnfit`."""
    try:
        content = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unfit() from error
    size = int.from_bytes(content[:4], "little")
    if len(content) > BYTES or size < 4 or size % 4 or 4 + size > len(content):
        raise _unfit()
    units = np.frombuffer(content, "<u4", count=size // 4, offset=4)
    replacements = content[4 + size :]
    letters = np.frombuffer(replacements, np.uint8)
    ends = np.flatnonzero(letters == 0)
    begin_letters = (letters & 0xC0) != 0x80
    until = np.cumsum(begin_letters) - begin_letters  # letters before each byte
    largest = 0.0
    for length, begins in _keys(units):
        found = np.searchsorted(ends, begins)
        if (found == len(ends)).any() or ((letters[begins] & 0xC0) == 0x80).any():
            raise _unfit()  # it does not end, or begins within a character
        counts = until[ends[found]] - until[begins]
        largest = max(largest, float(counts.max()) / length)
    return largest


def _keys(units: Units) -> "list[tuple[int, Places]]":
    """By length, where the replacements of all keys begin."""
    nodes: Places = np.zeros(1, dtype=np.int64)
    keys: list[tuple[int, Places]] = []
    left = 4 * len(units)  # that of `nmt_nfkc` has 44,800, and 39,000 nodes
    for length in range(1, LONGEST_KEY + 1):
        parts = [_children(units, nodes[i : i + _CHUNK]) for i in range(0, len(nodes), _CHUNK)]
        nodes = np.unique(np.concatenate(parts))
        left -= len(nodes)
        if not len(nodes):
            return keys
        if left < 0:
            break
        ending = nodes[(units[nodes] & _ENDS) != 0]
        values = ending ^ _offset(units[ending])
        if (values >= len(units)).any():
            break
        if len(values):
            keys.append((length, (units[values] & ~np.uint32(_LEAF)).astype(np.int64)))
    raise _unfit()  # it leads around in a circle, or out of itself


def _children(units: Units, nodes: Places) -> Places:
    labels = np.arange(1, 256)
    places = (nodes ^ _offset(units[nodes]))[:, None] ^ labels
    inside = places < len(units)
    found = units[np.where(inside, places, 0)]
    children: Places = places[inside & ((found & (_LEAF | 0xFF)) == labels)]
    return children


def _offset(units: Units) -> Places:
    """Bit 9 says that the offset is in units of 256."""
    wide = units.astype(np.int64)
    return (wide >> 10) << ((wide & (1 << 9)) >> 6)


def _unfit() -> TokenizerUnfit:
    return TokenizerUnfit(problem="its character map (precompiled_charsmap) is none")
