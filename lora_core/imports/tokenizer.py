"""What the tokenizer of an import may be, and what it can make of a text.

The library compiles any regular expression, makes any replacement and gives out any id, so nothing
of a `tokenizer.json` reaches it before `check` has read the whole of it.
"""

import json
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from lora_core.errors.artifact import TokenizerUnfit
from lora_core.imports import charsmap
from lora_core.imports.components import (
    COMPONENTS,
    BertNormalizer,
    Decoders,
    Ends,
    File,
    Normalizers,
    Precompiled,
    PreTokenizers,
    Processors,
    Replace,
    Template,
    Unicode,
)
from lora_core.specs.validation import first_fault

FILE_BYTES = 64_000_000  # that of XLM-R, with 250,000 pieces, has 17 MB
GROWTH = 20.0  # bytes that normalizers may make of one byte; NFKC alone makes 33 of three


class Bounds(NamedTuple):
    """What `check` found."""

    largest_id: int
    growth: float  # bytes that normalizing makes of one byte, at most


def check(path: Path) -> Bounds:
    """Raises `TokenizerUnfit` unless the library can be given this `tokenizer.json`."""
    try:
        if path.stat().st_size > FILE_BYTES:
            raise TokenizerUnfit(problem=f"its file is larger than {FILE_BYTES:,} bytes")
        said = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
        file = File.model_validate(said)
    except ValidationError as error:
        at, fault = first_fault(error, File)
        raise TokenizerUnfit(problem=f"{at} {fault}") from error
    except OSError as error:
        raise TokenizerUnfit(problem=f"there is no {path.name}") from error
    except (ValueError, RecursionError) as error:
        raise TokenizerUnfit(problem="its file cannot be read as JSON with unique names") from error
    kinds = (file.normalizer, file.pre_tokenizer, file.post_processor, file.decoder)
    if any(len(list(_each(kind))) > COMPONENTS for kind in kinds):
        raise TokenizerUnfit(problem=f"it has more than {COMPONENTS} components of one kind")
    growth = prod(map(_growth, _each(file.normalizer)))
    if growth > GROWTH:
        raise TokenizerUnfit(problem=f"its normalizers make up to {growth:.3g} bytes of one byte")
    return Bounds(max(_ids(file), default=0), growth)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two equal names they take, so there may be none."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _each(part: Any) -> Iterator[Any]:
    """A component, or those of a sequence."""
    match part:
        case None:
            return
        case Normalizers(normalizers=parts) | PreTokenizers(pretokenizers=parts):
            inner: Sequence[Any] = parts
        case Processors(processors=parts) | Decoders(decoders=parts):
            inner = parts
        case _:
            inner = ()
    yield part
    for each in inner:
        yield from _each(each)


def _growth(part: Any) -> float:
    """Bytes that one byte becomes at most."""
    match part:
        case Unicode(type="NFKC" | "NFKD"):
            return 11.0  # U+FDFA: 18 letters of two bytes, but for three spaces
        case Unicode(type="NFC" | "NFD") | BertNormalizer():
            return 3.0
        case Unicode(type="Lowercase"):
            return 1.5
        case Unicode(type="ByteLevel"):
            return 2.0
        case Replace(pattern=pattern, content=content):
            shortest = 2 if pattern.Regex == r" {2,}" else 1
            if pattern.String is not None:
                shortest = len(pattern.String.encode())
            return max(1.0, len(content.encode()) / shortest)
        case Precompiled(precompiled_charsmap=str(encoded)):
            return max(1.0, charsmap.growth(encoded))
    return 1.0


def _ids(file: File) -> Iterator[int]:
    """All that it can give out."""
    yield from file.model.ids()
    yield from (token.id for token in file.added_tokens)
    for part in _each(file.post_processor):
        match part:
            case Ends(sep=sep, cls=cls):
                yield from (sep[1], cls[1])
            case Template(special_tokens=tokens):
                yield from (each for token in tokens.values() for each in token.ids)
