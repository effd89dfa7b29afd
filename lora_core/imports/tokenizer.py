"""What the tokenizer of an import may be, and what it can make of a text.

The library compiles any regular expression, makes any replacement and gives out any id, so nothing
of a `tokenizer.json` reaches it before `check` has read the whole of it.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_core.errors.artifact import TokenizerUnfit
from lora_core.imports import charsmap
from lora_core.imports.tokenizer_components import (
    COMPONENTS,
    Decoders,
    Ends,
    File,
    Normalizers,
    Precompiled,
    PreTokenizers,
    Processors,
    Template,
)
from lora_core.specs.validation import first_fault

FILE_BYTES = 64_000_000  # that of XLM-R, with 250,000 pieces, has 17 MB
LETTERS = 6.0  # that a character map may make of one byte: as NFKC does, 18 of U+FDFA
ONCE = (
    ("NFKC", "NFKD", "Precompiled"),
    ("ByteLevel", "Metaspace"),
    ("Prepend",),
    ("BertNormalizer",),
)


def check(path: Path) -> int:
    """The largest id that it can give out.

    Raises `TokenizerUnfit` unless the library can be given this `tokenizer.json`.
    """
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
    _check_size(file)
    return max(_ids(file), default=0)


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


def _check_size(file: File) -> None:
    """What makes more of a text may be there once, or each would make more of what another made."""
    parts = [*_each(file.normalizer), *_each(file.pre_tokenizer)]
    for group in ONCE:
        if sum(part.type in group for part in parts) > 1:
            raise TokenizerUnfit(problem=f"it has more than one of {', '.join(group)}")
    for part in parts:
        match part:
            case Precompiled(precompiled_charsmap=str(encoded)):
                if (letters := charsmap.growth(encoded)) > LETTERS:
                    problem = f"its character map makes up to {letters:.3g} letters of one byte"
                    raise TokenizerUnfit(problem=problem)


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
