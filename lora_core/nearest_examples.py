"""The training examples that a text is nearest to, by the vectors that a model itself computes.

The vector of a text is what the last layers of the model read of it: the pooled state of an
encoder, or the TF-IDF of a linear model. A run stores those of a sample of its training texts,
with row numbers and labels. The texts are not stored, but TF-IDF lists their words and word pairs:

nearest_examples.json         rows and labels, and the split that the threshold comes from
nearest_examples.safetensors  the vectors, each with norm 1, and the similarities of held-out texts

Similarity is the cosine of the angle between two vectors. A text is unfamiliar if its fifth nearest
example is less similar than those of nearly all held-out texts are (Sun et al. 2022, arXiv
2204.06507).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictInt, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from lora_core import manifest
from lora_core.data.split import Example, rows_and_task_for_stratification
from lora_core.data.stratify import TextGroup, choose_stratification, group_rows_by_text
from lora_core.errors.artifact import ArtifactCorrupt, NoNearestExamples
from lora_core.specs.data import Split
from lora_core.specs.fields import FrozenModel
from lora_core.tasks.base import Task

MAX_EXAMPLES = 600
MAX_HELD_OUT = 400  # texts that the threshold comes from
MAX_VECTOR_BYTES = 2_000_000  # of all vectors
UNFAMILIAR_SHARE = 0.01  # of texts like the training texts that count as unfamiliar
NEIGHBOR = 5  # the neighbor whose similarity tells: an odd example alone makes nothing familiar
MIN_HELD_OUT = 20  # with fewer texts, no text is said to be unfamiliar
MAX_GROUPS = 20_000  # distinct texts that the sample is drawn from: stratifying more takes seconds

INDEX_FILE, VECTORS_FILE = manifest.NEAREST_EXAMPLES_FILES
MANIFEST_KEY = "nearest_examples"
_SEED = 0
_BYTES_OF_NONZERO = 6  # a weight in float16 and its column in int32

States = Any  # (texts, width): an array, or a sparse matrix of a linear model
Similarities = NDArray[np.float32]  # (texts, examples), or (texts,) to one of them


class ExampleVectors(ABC):
    """The vectors of the examples, in the form in which a kind of model computes them."""

    least_similarity: ClassVar[float]  # that a text can have

    @classmethod
    @abstractmethod
    def from_states(cls, states: States) -> Self:
        """Return the normalized vectors of these states (examples, width).

        There may be fewer than states, so that they take at most `MAX_VECTOR_BYTES`.
        """

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], width: int) -> Self:
        """Return what `tensors` returned. Raises `KeyError`, `ValueError`."""

    @abstractmethod
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of examples, and the width of a vector."""

    @abstractmethod
    def similarities(self, states: States) -> Similarities:
        """Return the similarity (texts, examples) of each text to each example."""


class DenseVectors(ExampleVectors):
    """Vectors of an encoder."""

    least_similarity = -1.0

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        """`vectors` (examples, width), whose rows have the norm 1."""
        self.vectors = vectors.astype(np.float32)

    @classmethod
    def from_states(cls, states: States) -> Self:
        states = np.asarray(states, dtype=np.float32)
        states = states[: MAX_VECTOR_BYTES // (2 * states.shape[1])]
        return cls(_normalized(states).astype(np.float16))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], width: int) -> Self:
        vectors = tensors["vectors"]
        if vectors.dtype != np.float16 or vectors.ndim != 2 or vectors.shape[1] != width:
            raise ValueError("its vectors have another type or width")
        return cls(vectors)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"vectors": self.vectors.astype(np.float16)}

    @property
    def shape(self) -> tuple[int, int]:
        examples, width = self.vectors.shape
        return examples, width

    def similarities(self, states: States) -> Similarities:
        x = _normalized(np.asarray(states, dtype=np.float32))
        similarities: Similarities = x @ self.vectors.T
        return similarities


class SparseVectors(ExampleVectors):
    """Vectors of a linear model: TF-IDF, which has an origin, a text without known terms."""

    least_similarity = 0.0  # no weight is negative

    def __init__(self, vectors: csr_matrix) -> None:
        """`vectors` (examples, width), whose rows have the norm 1 or 0."""
        data = vectors.data.astype(np.float16).astype(np.float32)  # as it is stored
        self.vectors = csr_matrix((data, vectors.indices, vectors.indptr), shape=vectors.shape)

    @classmethod
    def from_states(cls, states: States) -> Self:
        vectors = _normalized_rows(csr_matrix(states))
        ends = vectors.indptr[1:] * _BYTES_OF_NONZERO
        return cls(vectors[: max(1, int(np.searchsorted(ends, MAX_VECTOR_BYTES, "right")))])

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], width: int) -> Self:
        data, indices, indptr = (tensors[name] for name in ("data", "indices", "indptr"))
        if data.dtype != np.float16 or indices.dtype != np.int32 or indptr.dtype != np.int32:
            raise ValueError("its vectors have another type")
        shape = (len(indptr) - 1, width)
        vectors = csr_matrix((data, indices, indptr), shape=shape)
        vectors.check_format(full_check=True)
        return cls(vectors)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {
            "data": self.vectors.data.astype(np.float16),
            "indices": self.vectors.indices.astype(np.int32),
            "indptr": self.vectors.indptr.astype(np.int32),
        }

    @property
    def shape(self) -> tuple[int, int]:
        examples, width = self.vectors.shape
        return examples, width

    def similarities(self, states: States) -> Similarities:
        x = _normalized_rows(csr_matrix(states))
        similarities: Similarities = (x @ self.vectors.T).toarray().astype(np.float32)
        return similarities


def _normalized(x: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    normalized: NDArray[np.float32] = x / np.maximum(norms, 1e-12)
    return normalized


def _normalized_rows(x: csr_matrix) -> csr_matrix:
    norms = np.sqrt(x.multiply(x).sum(axis=1)).A1
    lengths = np.diff(x.indptr)
    data = (x.data / np.repeat(np.maximum(norms, 1e-12), lengths)).astype(np.float32)
    return csr_matrix((data, x.indices, x.indptr), shape=x.shape)


# -- The index ------------------------------------------------------------------------------------


class Neighbor(NamedTuple):
    """A training example, and how similar a text is to it."""

    row: int  # in the training data; 1 is the first data row
    label: str  # as rows of a dataset have it (`lora_core.data.label_readers`)
    similarity: float  # from -1 to 1


@dataclass(frozen=True)
class UnfamiliarityThreshold:
    """The similarity below which a text is unfamiliar."""

    similarity: float
    held_out: int  # texts that it comes from
    expected_share: float  # of texts like the training texts that are unfamiliar


@dataclass(frozen=True, eq=False)
class ExampleIndex:
    """The examples of a model version, to find the nearest ones of a text."""

    rows: tuple[int, ...]
    labels: tuple[str, ...]
    vectors: ExampleVectors
    held_out_split: Split
    # `kth_neighbor_similarities` of the held-out texts, in ascending order.
    held_out: NDArray[np.float32]

    @property
    def threshold(self) -> UnfamiliarityThreshold | None:
        """The threshold; None if there are too few held-out texts, or no examples like them.

        It is the k-th smallest similarity of n held-out texts. For a new text from the same
        distribution, the probability to be below it is at most k / (n + 1), whatever the
        distribution; k is the largest number with which that is at most `UNFAMILIAR_SHARE`, but so
        large that a text can be below.
        """
        n = len(self.held_out)
        lowest = int(np.searchsorted(self.held_out, self.vectors.least_similarity, "right"))
        k = max(lowest + 1, int(UNFAMILIAR_SHARE * (n + 1)))
        if n < MIN_HELD_OUT or k > n:
            return None
        return UnfamiliarityThreshold(float(self.held_out[k - 1]), n, k / (n + 1))

    def kth_neighbor_similarities(self, states: States) -> Similarities:
        """Return the similarity (texts,) of each text to its fifth nearest example."""
        return kth_neighbor_similarities(self.vectors, states)

    def nearest(self, state: States, count: int) -> list[Neighbor]:
        """Return the nearest examples of the text with this state (1, width), nearest first."""
        [similarities] = self.vectors.similarities(state)
        order = np.argsort(-similarities, kind="stable")[:count].tolist()
        return [Neighbor(self.rows[i], self.labels[i], float(similarities[i])) for i in order]

    def manifest_entry(self) -> dict[str, Any]:
        """Return what the manifest says about the index."""
        threshold = self.threshold
        facts: dict[str, Any] = {"examples": len(self.rows), "held_out_split": self.held_out_split}
        if threshold is not None:
            facts |= {
                "held_out": threshold.held_out,
                "similarity": round(threshold.similarity, 4),
                "expected_share": round(threshold.expected_share, 4),
            }
        return facts


def kth_neighbor_similarities(vectors: ExampleVectors, states: States) -> Similarities:
    """Return the similarity (texts,) to the fifth nearest example, or to the last of fewer."""
    similarities = np.sort(vectors.similarities(states), axis=1)
    nth: Similarities = similarities[:, -min(NEIGHBOR, similarities.shape[1])]
    return nth


def sample_example_indices(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return the indices of the training examples to store: distinct texts, stratified.

    They are the same in whatever order the examples are.
    """
    rows, task = rows_and_task_for_stratification(examples)
    distinct = [TextGroup(group.key, group.rows[:1]) for group in group_rows_by_text(rows, _SEED)][
        :MAX_GROUPS
    ]
    if len(distinct) > MAX_EXAMPLES:
        strata = choose_stratification(task, [group.rows[0] for group in distinct])
        # None if there are more labels than examples
        distinct = strata.subset(distinct, MAX_EXAMPLES) or distinct[:MAX_EXAMPLES]
    return np.array([group.rows[0].number for group in distinct], dtype=np.int64)


def sample_held_out_indices(count: int) -> NDArray[np.int64]:
    """Return the ascending indices of the held-out texts, of `count`, that are compared."""
    return np.sort(np.random.default_rng(_SEED).permutation(count)[:MAX_HELD_OUT])


def build_index(
    examples: Sequence[Example],
    task: Task,
    vectors: ExampleVectors,
    held_out_split: Split,
    held_out_states: States,
) -> ExampleIndex:
    """Return the index of examples with these vectors; there may be fewer vectors."""
    examples = examples[: vectors.shape[0]]
    return ExampleIndex(
        tuple(example.row for example in examples),
        tuple(task.target_to_label(example.label) for example in examples),
        vectors,
        held_out_split,
        np.sort(kth_neighbor_similarities(vectors, held_out_states)),
    )


# -- Files. Reading is strict ---------------------------------------------------------------------


class _Description(FrozenModel):
    format: Literal[1] = 1
    kind: Literal["dense", "sparse"]
    width: Annotated[StrictInt, Field(ge=1)]
    held_out_split: Split
    rows: Annotated[tuple[StrictInt, ...], Field(min_length=1, max_length=MAX_EXAMPLES)]
    labels: tuple[str, ...]


_KINDS: Mapping[Literal["dense", "sparse"], type[ExampleVectors]] = {
    "dense": DenseVectors,
    "sparse": SparseVectors,
}


def save_index(directory: Path, index: ExampleIndex) -> None:
    """Write both files."""
    [kind] = [name for name, each in _KINDS.items() if isinstance(index.vectors, each)]
    description = _Description(
        kind=kind,
        width=index.vectors.shape[1],
        held_out_split=index.held_out_split,
        rows=index.rows,
        labels=index.labels,
    )
    content = json.dumps(description.model_dump(mode="json"), ensure_ascii=False)
    (directory / INDEX_FILE).write_text(content, encoding="utf-8")
    tensors = {**index.vectors.tensors(), "held_out": index.held_out}
    save_file(
        {name: np.ascontiguousarray(each) for name, each in tensors.items()},
        directory / VECTORS_FILE,
    )


# The last two: of types that numpy lacks, such as bfloat16.
_INVALID = (
    FileNotFoundError, SafetensorError, ValidationError, KeyError, ValueError, TypeError,
    AttributeError,
)  # fmt: skip


def load_index(directory: Path, *, digest: str | None = None) -> ExampleIndex:
    """Load the index of an artifact, checking the digests of its files.

    `digest`: the SHA-256 that the manifest must have.

    Raises `NoNearestExamples` if the artifact has none, and `ArtifactCorrupt`. A file that cannot
    be read is not treated as corrupt: its `OSError` propagates.
    """
    facts = manifest.verify(directory, only=manifest.NEAREST_EXAMPLES_FILES, digest=digest)
    if not manifest.has_nearest_examples(facts["files"]):
        raise NoNearestExamples(path=directory.name)
    try:
        return _read_index(directory)
    except _INVALID as error:
        problem = f"its nearest examples are invalid ({error})"
        raise ArtifactCorrupt(path=directory.name, problem=problem) from error


def _read_index(directory: Path) -> ExampleIndex:
    content = (directory / INDEX_FILE).read_bytes()
    description = _Description.model_validate_json(content)
    tensors = dict(load_file(directory / VECTORS_FILE))
    held_out = tensors.pop("held_out")
    vectors = _KINDS[description.kind].from_tensors(tensors, description.width)
    examples = vectors.shape[0]
    if not examples == len(description.rows) == len(description.labels):
        raise ValueError("rows, labels and vectors differ in number")
    if held_out.dtype != np.float32 or held_out.ndim != 1:
        raise ValueError("its held-out similarities have another type")
    if not all(np.isfinite(each).all() for each in (*vectors.tensors().values(), held_out)):
        raise ValueError("a number is not finite")
    return ExampleIndex(
        description.rows, description.labels, vectors, description.held_out_split, held_out
    )
