"""The files of a linear model: scikit-learn's parameters without any code.

linear.json          how texts become terms, and the terms, in the order of the columns
linear.safetensors   in float64: `coef` (rows, terms), `intercept` (rows,), `idf` (terms,)

Two labels have one row, which speaks for the second; more labels have a row each. Reading is
strict, since a model may come from anywhere. Loads no scikit-learn.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lora_core.errors.artifact import ArtifactUnfit
from lora_core.linear.limits import MAX_TERM, MAX_TERMS, most_terms, rows_of
from lora_core.manifest import LINEAR
from lora_core.specs.frozen import Frozen
from lora_core.specs.method import NGram
from lora_core.specs.validation import first_fault

WEIGHTS = "linear.safetensors"
FILES = (LINEAR, WEIGHTS)
_JSON_BYTES = 100_000_000  # MAX_TERMS of MAX_TERM characters of four bytes
_LARGEST = 1e9  # of any number
_HEADER_BYTES = 10_000

Term = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TERM)]


class Vectorizer(Frozen):
    """Parameters of scikit-learn's `TfidfVectorizer`. Those with one value are there to be read."""

    analyzer: Literal["word"] = "word"
    lowercase: Literal[True] = True
    token_pattern: Literal[r"(?u)\b\w\w+\b"] = r"(?u)\b\w\w+\b"  # noqa: S105
    ngram_range: tuple[NGram, NGram]
    sublinear_tf: Literal[True] = True
    norm: Literal["l2"] = "l2"


class _Description(Frozen):
    format: Literal[1] = 1
    vectorizer: Vectorizer
    terms: Annotated[tuple[Term, ...], Field(max_length=MAX_TERMS)]


@dataclass(frozen=True, eq=False)
class Parameters:
    """All that a linear model is."""

    vectorizer: Vectorizer
    terms: tuple[str, ...]
    coef: NDArray[np.float64]  # (rows, terms)
    intercept: NDArray[np.float64]  # (rows,)
    idf: NDArray[np.float64]  # (terms,)


def save(directory: Path, parameters: Parameters) -> None:
    """Write both files."""
    description = _Description(vectorizer=parameters.vectorizer, terms=parameters.terms)
    (directory / LINEAR).write_text(description.model_dump_json(indent=1), encoding="utf-8")
    tensors = {"coef": parameters.coef, "intercept": parameters.intercept, "idf": parameters.idf}
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, directory / WEIGHTS)


def read(directory: Path, labels: int) -> Parameters:
    """What `save` wrote, of a model with so many labels. Raises `ArtifactUnfit`."""
    description = _described(directory)
    terms, rows = len(description.terms), rows_of(labels)
    if terms > most_terms(labels):
        raise ArtifactUnfit(problem=f"{LINEAR} has more than {most_terms(labels):,} terms")
    if len(set(description.terms)) != terms:
        raise ArtifactUnfit(problem=f"{LINEAR} has a term twice")
    shapes = {"coef": (rows, terms), "intercept": (rows,), "idf": (terms,)}
    largest = 8 * sum(int(np.prod(shape)) for shape in shapes.values()) + _HEADER_BYTES
    tensors = _tensors(directory, largest)
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise ArtifactUnfit(problem=f"{WEIGHTS} does not fit the labels and terms of the model")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float64 or not (np.abs(tensor) <= _LARGEST).all():
            raise ArtifactUnfit(
                problem=f"{name} in {WEIGHTS} is not float64 with numbers up to {_LARGEST:g}"
            )
    return Parameters(description.vectorizer, description.terms, **tensors)


def _described(directory: Path) -> _Description:
    try:
        if (directory / LINEAR).stat().st_size > _JSON_BYTES:
            raise ArtifactUnfit(problem=f"{LINEAR} is larger than {_JSON_BYTES:,} bytes")
        return _Description.model_validate_json((directory / LINEAR).read_bytes(), strict=True)
    except OSError as error:
        raise ArtifactUnfit(problem=f"{LINEAR} cannot be read") from error
    except ValidationError as error:
        place, fault = first_fault(error, _Description)
        raise ArtifactUnfit(problem=f"{LINEAR} has a wrong {place}: {fault}") from error


def _tensors(directory: Path, most: int) -> dict[str, NDArray[np.float64]]:
    try:
        if (directory / WEIGHTS).stat().st_size > most:
            raise ArtifactUnfit(problem=f"{WEIGHTS} is larger than {most:,} bytes")
        return dict(load_file(directory / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ArtifactUnfit(problem=f"{WEIGHTS} cannot be read") from error
