"""Validate the tokenizer of an import.

The library compiles any regular expression, applies any replacement and outputs any id. Therefore
no part of a `tokenizer.json` reaches it before `check_tokenizer` has validated all of it.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_core.errors.artifact import UnsupportedTokenizer
from lora_core.imports import charsmap
from lora_core.imports.tokenizer_components import (
    MAX_COMPONENTS,
    DecoderSequence,
    NormalizerSequence,
    PostProcessorSequence,
    Precompiled,
    PreTokenizerSequence,
    SpecialTokenProcessing,
    TemplateProcessing,
    TokenizerFile,
)
from lora_core.specs.validation import first_problem

MAX_FILE_BYTES = 64_000_000  # XLM-R, with 250,000 pieces, has 17 MB
MAX_EXPANSION = 6.0  # characters per byte of a character map; NFKC maps U+FDFA to 18 characters
AT_MOST_ONCE = (
    ("NFKC", "NFKD", "Precompiled"),
    ("ByteLevel", "Metaspace"),
    ("Prepend",),
    ("BertNormalizer",),
)


def check_tokenizer(path: Path) -> int:
    """Return the largest token id. Raises `UnsupportedTokenizer` if the file is not safe."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnsupportedTokenizer(problem=f"its file is larger than {MAX_FILE_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
        file = TokenizerFile.model_validate(content)
    except ValidationError as error:
        location, message = first_problem(error, TokenizerFile)
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
    for group in AT_MOST_ONCE:
        if sum(component.type in group for component in components) > 1:
            raise UnsupportedTokenizer(problem=f"it has more than one of {', '.join(group)}")
    for component in components:
        match component:
            case Precompiled(precompiled_charsmap=str(encoded)):
                if (expansion := charsmap.max_expansion(encoded)) > MAX_EXPANSION:
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
            case SpecialTokenProcessing(sep=sep, cls=cls):
                yield from (sep[1], cls[1])
            case TemplateProcessing(special_tokens=tokens):
                yield from (token_id for token in tokens.values() for token_id in token.ids)
