"""The files of a linear model: the parameters of scikit-learn, without code.

- `linear.json`: settings of the vectorizer, and the terms in column order
- `linear.safetensors`, in float64: `coef` (rows, terms), `intercept` (rows,), `idf` (terms,)

A model of text pairs has three weights for each term, so its `coef` is (rows, 3 · terms).

Two labels have one row of weights, for the second label; more labels, and those of a multi-label
task, have one row each. A regression has one row. Reading is strict, because a model may come from
an untrusted source. Does not import scikit-learn.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lora_core.errors.artifact import InvalidImportedModel
from lora_core.manifest import LINEAR_FILE
from lora_core.specs.fields import FrozenModel
from lora_core.specs.method import NGram
from lora_core.specs.validation_problems import first_problem_location_and_message

MAX_TERMS = 200_000
MAX_TERM_CHARACTERS = 100
MAX_WEIGHTS = 4_000_000  # rows x terms: 32 MB, of which a fit needs 25 times as much memory


def count_weight_rows(outputs: int, *, single_label: bool = True) -> int:
    """Return the rows of weights for a number of outputs. Two of a single-label task have one."""
    return 1 if outputs == 2 and single_label else outputs


def max_terms_for_weight_rows(rows: int, *, pairs: bool = False) -> int:
    """Return the maximum number of terms for a number of rows of weights."""
    return min(MAX_TERMS, MAX_WEIGHTS // (rows * _blocks(pairs)))


def _blocks(pairs: bool) -> int:
    """Return how many weights each term has: for pairs as in `model.combine_pair_features`."""
    return 3 if pairs else 1


WEIGHTS_FILE = "linear.safetensors"
MODEL_FILES = (LINEAR_FILE, WEIGHTS_FILE)
_MAX_JSON_BYTES = 100_000_000  # MAX_TERMS of MAX_TERM_CHARACTERS with four bytes each
_MAX_VALUE = 1e9  # of any parameter
_MAX_HEADER_BYTES = 10_000

Term = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TERM_CHARACTERS)]


class VectorizerSettings(FrozenModel):
    """Parameters of scikit-learn's `TfidfVectorizer`. Constant ones are stored as documentation."""

    analyzer: Literal["word"] = "word"
    lowercase: Literal[True] = True
    token_pattern: Literal[r"(?u)\b\w\w+\b"] = r"(?u)\b\w\w+\b"  # noqa: S105
    ngram_range: tuple[NGram, NGram]
    sublinear_tf: Literal[True] = True
    norm: Literal["l2"] = "l2"


class LinearModelJson(FrozenModel):
    format: Literal[1] = 1
    pairs: StrictBool = Field(default=False, exclude_if=lambda value: not value)
    vectorizer: VectorizerSettings
    terms: Annotated[tuple[Term, ...], Field(max_length=MAX_TERMS)]


@dataclass(frozen=True, eq=False)
class LinearParameters:
    """The parameters of a linear model."""

    vectorizer: VectorizerSettings
    terms: tuple[str, ...]
    coef: NDArray[np.float64]  # (rows, terms), of pairs (rows, 3 · terms)
    intercept: NDArray[np.float64]  # (rows,)
    idf: NDArray[np.float64]  # (terms,)
    pairs: bool = False  # whether the model reads pairs of texts


def save_parameters(directory: Path, parameters: LinearParameters) -> None:
    """Write both files."""
    description = LinearModelJson(
        pairs=parameters.pairs, vectorizer=parameters.vectorizer, terms=parameters.terms
    )
    (directory / LINEAR_FILE).write_text(description.model_dump_json(indent=1), encoding="utf-8")
    tensors = {"coef": parameters.coef, "intercept": parameters.intercept, "idf": parameters.idf}
    save_file(
        {name: np.ascontiguousarray(t) for name, t in tensors.items()}, directory / WEIGHTS_FILE
    )


def read_parameters(directory: Path, rows: int) -> LinearParameters:
    """Read and validate the files of a model with this number of rows of weights.

    Raises `InvalidImportedModel`.
    """
    description = _read_description(directory)
    terms, pairs = len(description.terms), description.pairs
    if terms > (limit := max_terms_for_weight_rows(rows, pairs=pairs)):
        raise InvalidImportedModel(problem=f"{LINEAR_FILE} has more than {limit:,} terms")
    if len(set(description.terms)) != terms:
        raise InvalidImportedModel(problem=f"{LINEAR_FILE} has a duplicate term")
    shapes = {"coef": (rows, _blocks(pairs) * terms), "intercept": (rows,), "idf": (terms,)}
    largest = 8 * sum(int(np.prod(shape)) for shape in shapes.values()) + _MAX_HEADER_BYTES
    tensors = _read_tensors(directory, largest)
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise InvalidImportedModel(
            problem=f"{WEIGHTS_FILE} does not fit the labels and terms of the model"
        )
    for name, tensor in tensors.items():
        if tensor.dtype != np.float64 or not (np.abs(tensor) <= _MAX_VALUE).all():
            raise InvalidImportedModel(
                problem=f"{name} in {WEIGHTS_FILE} is not float64 with numbers up to {_MAX_VALUE:g}"
            )
    return LinearParameters(
        description.vectorizer,
        description.terms,
        tensors["coef"],
        tensors["intercept"],
        tensors["idf"],
        description.pairs,
    )


def _read_description(directory: Path) -> LinearModelJson:
    try:
        if (directory / LINEAR_FILE).stat().st_size > _MAX_JSON_BYTES:
            raise InvalidImportedModel(
                problem=f"{LINEAR_FILE} is larger than {_MAX_JSON_BYTES:,} bytes"
            )
        return LinearModelJson.model_validate_json(
            (directory / LINEAR_FILE).read_bytes(), strict=True
        )
    except OSError as error:
        raise InvalidImportedModel(problem=f"{LINEAR_FILE} cannot be read") from error
    except ValidationError as error:
        location, message = first_problem_location_and_message(error, LinearModelJson)
        raise InvalidImportedModel(
            problem=f"{LINEAR_FILE} has an invalid {location}: {message}"
        ) from error


def _read_tensors(directory: Path, max_bytes: int) -> dict[str, NDArray[np.float64]]:
    try:
        if (directory / WEIGHTS_FILE).stat().st_size > max_bytes:
            raise InvalidImportedModel(problem=f"{WEIGHTS_FILE} is larger than {max_bytes:,} bytes")
        tensors = dict(load_file(directory / WEIGHTS_FILE))
        if any(tensor.dtype.kind == "V" for tensor in tensors.values()):
            raise TypeError  # bfloat16, which numpy lacks unless another library has added it
        return tensors
    # the last two: of types that numpy lacks
    except (OSError, SafetensorError, TypeError, AttributeError) as error:
        raise InvalidImportedModel(problem=f"{WEIGHTS_FILE} cannot be read") from error
