"""Validate the tokenizer of an import, and try it.

The library compiles any regular expression, applies any replacement and outputs any id. Therefore
no part of a `tokenizer.json` reaches it before `validate_tokenizer_get_max_id` has validated all
of it.
"""

import binascii
import json
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from lora_core.errors.artifact import UnsupportedTokenizer
from lora_core.model_imports.tokenizer_schema import (
    MAX_CHARSMAP_BYTES,
    MAX_COMPONENTS,
    BertOrRobertaProcessing,
    DecoderSequence,
    NormalizerSequence,
    PostProcessorSequence,
    PrecompiledCharsmapNormalizer,
    PreTokenizerSequence,
    TemplateProcessing,
    TokenizerFile,
)
from lora_core.rust_panics import convert_panics
from lora_core.specs.validation_problems import first_problem_location_and_message

if TYPE_CHECKING:
    from tokenizers import Tokenizer  # slow to import, and workers only validate

MAX_FILE_BYTES = 64_000_000  # XLM-R, with 250,000 pieces, has 17 MB
MAX_EXPANSION = 6.0  # characters per byte of a character map; NFKC maps U+FDFA to 18 characters
_AT_MOST_ONCE = (
    ("NFKC", "NFKD", "Precompiled"),
    ("ByteLevel", "Metaspace"),
    ("Prepend",),
    ("BertNormalizer",),
)


def validate_tokenizer_get_max_id(path: Path) -> int:
    """Return the largest token id. Raises `UnsupportedTokenizer` if the file is not safe."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnsupportedTokenizer(problem=f"its file is larger than {MAX_FILE_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
        file = TokenizerFile.model_validate(content)
    except ValidationError as error:
        location, message = first_problem_location_and_message(error, TokenizerFile)
        raise UnsupportedTokenizer(problem=f"{location} {message}") from error
    except OSError as error:
        raise UnsupportedTokenizer(problem=f"{path.name} does not exist") from error
    except (ValueError, RecursionError) as error:
        raise UnsupportedTokenizer(problem="its file is not JSON with unique keys") from error
    components = (file.normalizer, file.pre_tokenizer, file.post_processor, file.decoder)
    if any(len(list(_flatten(component))) > MAX_COMPONENTS for component in components):
        raise UnsupportedTokenizer(
            problem=f"it has more than {MAX_COMPONENTS} components of one type"
        )
    _check_expansion(file)
    return max(_token_ids(file), default=0)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Readers differ in which of two equal keys they use, so duplicates are
    refused."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _flatten(component: Any) -> Iterator[Any]:
    """Yield a component and, recursively, those of a sequence."""
    match component:
        case None:
            return
        case NormalizerSequence(normalizers=parts) | PreTokenizerSequence(pretokenizers=parts):
            inner: Sequence[Any] = parts
        case PostProcessorSequence(processors=parts) | DecoderSequence(decoders=parts):
            inner = parts
        case _:
            inner = ()
    yield component
    for child in inner:
        yield from _flatten(child)


def _check_expansion(file: TokenizerFile) -> None:
    """Refuse several components that lengthen a text, because their effects multiply."""
    components = [*_flatten(file.normalizer), *_flatten(file.pre_tokenizer)]
    for group in _AT_MOST_ONCE:
        if sum(component.type in group for component in components) > 1:
            raise UnsupportedTokenizer(problem=f"it has more than one of {', '.join(group)}")
    for component in components:
        match component:
            case PrecompiledCharsmapNormalizer(precompiled_charsmap=str(encoded)):
                if (expansion := max_charsmap_expansion(encoded)) > MAX_EXPANSION:
                    problem = (
                        f"its character map produces up to {expansion:.3g} characters per byte"
                    )
                    raise UnsupportedTokenizer(problem=problem)


def _token_ids(file: TokenizerFile) -> Iterator[int]:
    """Yield all ids that the tokenizer can output."""
    yield from file.model.ids()
    yield from (token.id for token in file.added_tokens)
    for component in _flatten(file.post_processor):
        match component:
            case BertOrRobertaProcessing(sep=sep, cls=cls):
                yield from (sep[1], cls[1])
            case TemplateProcessing(special_tokens=tokens):
                yield from (token_id for token in tokens.values() for token_id in token.ids)


# -- The SentencePiece character map of a `Precompiled` normalizer --------------------------------

# The map consists of four bytes of length, a trie over bytes, and the replacements, each terminated
# by NUL. The trie is a double array (darts-clone) of four-byte units: 8 bits of label, a bit that
# marks the end of a key, and an offset. The position of a child is the position of its parent xor
# the parent's offset xor the child's label. The value of a key is where the child with label 0
# would be.


MAX_KEY_BYTES = 64
_CHUNK_NODES = 4096  # nodes processed at a time
_LEAF = 1 << 31
_HAS_LEAF = 1 << 8

_Units = NDArray[np.uint32]
_Positions = NDArray[np.int64]


def max_charsmap_expansion(encoded: str) -> float:
    """Return the maximum number of characters per input byte over all keys. Raises
    `UnsupportedTokenizer`."""
    try:
        content = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid_charsmap() from error
    size = int.from_bytes(content[:4], "little")
    if len(content) > MAX_CHARSMAP_BYTES or size < 4 or size % 4 or 4 + size > len(content):
        raise _invalid_charsmap()
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
            raise _invalid_charsmap()  # unterminated, or starting inside a character
        counts = characters_before[ends[end_indices]] - characters_before[starts]
        largest = max(largest, float(counts.max()) / length)
    return largest


def _replacement_offsets(units: _Units) -> "list[tuple[int, _Positions]]":
    """Return, by key length, the offsets of the replacements of all keys."""
    nodes: _Positions = np.zeros(1, dtype=np.int64)
    keys: list[tuple[int, _Positions]] = []
    remaining_nodes = 4 * len(units)  # `nmt_nfkc` has 44,800 units and 39,000 nodes
    for length in range(1, MAX_KEY_BYTES + 1):
        child_chunks = [
            _child_nodes(units, nodes[i : i + _CHUNK_NODES])
            for i in range(0, len(nodes), _CHUNK_NODES)
        ]
        nodes = np.unique(np.concatenate(child_chunks))
        remaining_nodes -= len(nodes)
        if not len(nodes):
            return keys
        if remaining_nodes < 0:
            break
        ending = nodes[(units[nodes] & _HAS_LEAF) != 0]
        values = ending ^ _unit_offsets(units[ending])
        if (values >= len(units)).any():
            break
        if len(values):
            keys.append((length, (units[values] & ~np.uint32(_LEAF)).astype(np.int64)))
    raise _invalid_charsmap()  # cyclic, or pointing outside of the trie


def _child_nodes(units: _Units, nodes: _Positions) -> _Positions:
    labels = np.arange(1, 256)
    positions = (nodes ^ _unit_offsets(units[nodes]))[:, None] ^ labels
    inside = positions < len(units)
    child_units = units[np.where(inside, positions, 0)]
    children: _Positions = positions[inside & ((child_units & (_LEAF | 0xFF)) == labels)]
    return children


def _unit_offsets(units: _Units) -> _Positions:
    """Return the offsets. Bit 9 marks an offset in units of 256."""
    units_64 = units.astype(np.int64)
    return (units_64 >> 10) << ((units_64 & (1 << 9)) >> 6)


def _invalid_charsmap() -> UnsupportedTokenizer:
    return UnsupportedTokenizer(problem="its character map (precompiled_charsmap) is invalid")


# -- A trial on difficult texts, with limits on time and output -----------------------------------

_TEXT_CHARACTERS = 4_000  # per text
MAX_TRIAL_SECONDS = 10.0  # of CPU time over all cores and texts; BERT takes 0.2
MAX_TOKENS_PER_BYTE = 16  # NFKC and bytes produce 11
MAX_SPECIAL_TOKENS = 16  # per text
_TRIAL_SUFFIX = "\N{CURRENCY SIGN}"  # makes a regular expression that fails to match backtrack

_REPEATED_PARTS = (
    *map(chr, range(32, 127)),
    *("a ", "a, ", "word ", "The ", "\t\r\n", "[CLS] ", "<s>", "##", "don't ", "1.5e-3 "),
    *("\N{LATIN SMALL LETTER SHARP S}", "I\N{COMBINING DOT ABOVE}", "e\N{COMBINING ACUTE ACCENT}"),
    *("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "\N{LATIN SMALL LIGATURE FFI}"),
    *("\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\N{HANGUL SYLLABLE GAG}", "\N{ARABIC LETTER ALEF}"),
    *("\N{LOWER ONE EIGHTH BLOCK}", "\N{NO-BREAK SPACE}", "\N{ZERO WIDTH JOINER}"),
    *("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}", "\N{REPLACEMENT CHARACTER}"),
    "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}",  # NFKC expands it most
)


def stress_test_tokenizer(tokenizer: "Tokenizer") -> None:
    """Raise `UnsupportedTokenizer` if it fails, is slow, or produces too many tokens."""
    started = time.process_time()
    for text in _trial_texts():
        try:
            with convert_panics():
                [encoding] = tokenizer.encode_batch_fast([text])
                tokenizer.encode(text)
        except MemoryError:
            raise
        except Exception as error:
            problem = f"it fails on a text ({type(error).__name__})"
            raise UnsupportedTokenizer(problem=problem) from error
        tokens, size = len(encoding.ids), len(text.encode())
        if tokens > MAX_TOKENS_PER_BYTE * size + MAX_SPECIAL_TOKENS:
            raise UnsupportedTokenizer(problem=f"it produces {tokens:,} tokens for {size:,} bytes")
        if time.process_time() - started > MAX_TRIAL_SECONDS:
            raise UnsupportedTokenizer(
                problem=f"it takes more than {MAX_TRIAL_SECONDS:g} s for a few texts"
            )


def _trial_texts() -> Iterator[str]:
    yield from ("", " ", "a")
    for sequence in _REPEATED_PARTS:
        yield sequence * (_TEXT_CHARACTERS // len(sequence))
        yield sequence * (_TEXT_CHARACTERS // len(sequence)) + _TRIAL_SUFFIX
    # Some characters of every script, in order and mixed.
    characters = [chr(i) for i in range(1, 0x11000, 17) if not 0xD800 <= i < 0xE000]
    yield "".join(characters[:_TEXT_CHARACTERS])
    yield " ".join(characters[i * 7919 % len(characters)] for i in range(_TEXT_CHARACTERS // 2))
