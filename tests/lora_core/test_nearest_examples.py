"""Nearest training examples, against scikit-learn, and the share of texts that are unfamiliar."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from lora_core import manifest, nearest_examples
from lora_core.data.split import Example
from lora_core.errors.artifact import ArtifactCorrupt, NoNearestExamples
from lora_core.nearest_examples import (
    INDEX_FILE,
    MAX_EXAMPLES,
    MAX_VECTOR_BYTES,
    VECTORS_FILE,
    DenseVectors,
    ExampleIndex,
    ExampleVectors,
    SparseVectors,
    sample_example_indices,
    sample_held_out_indices,
)
from lora_core.specs.data import Split
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.single_label import SingleLabel

FP16 = 2e-3  # of similarities
WORDS = ("parcel", "late", "refund", "invoice", "broken", "screen", "login", "password", "thanks")
Tensors = dict[str, NDArray[Any]]


def random_states(count: int, width: int = 24, seed: int = 0) -> NDArray[np.float32]:
    """States like those of an encoder: with a direction in common."""
    rng = np.random.default_rng(seed)
    return (1 + rng.normal(size=(count, width))).astype(np.float32)


def random_texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=6)) for _ in range(count)]


def index_of(vectors: ExampleVectors, held_out: NDArray[np.float32]) -> ExampleIndex:
    count = vectors.shape[0]
    labels = tuple("ab"[i % 2] for i in range(count))
    return ExampleIndex(tuple(range(3, 3 + count)), labels, vectors, Split.VALIDATION, held_out)


def dense(count: int = 60) -> ExampleIndex:
    vectors = DenseVectors.from_states(random_states(count))
    return index_of(vectors, np.linspace(-0.5, 0.9, 120, dtype=np.float32))


def sparse(count: int = 60) -> ExampleIndex:
    tfidf = TfidfVectorizer(vocabulary=WORDS).fit_transform(random_texts(count))
    return index_of(SparseVectors.from_states(tfidf), np.zeros(0, dtype=np.float32))


# -- Neighbors ------------------------------------------------------------------------------------


def test_dense_neighbors_are_those_of_scikit_learn() -> None:
    states, queries = random_states(200), random_states(30, seed=1)
    index = index_of(DenseVectors.from_states(states), np.zeros(0, dtype=np.float32))
    reference = NearestNeighbors(n_neighbors=5, metric="cosine").fit(states)
    distances, neighbors = reference.kneighbors(queries)
    for query, far, rows in zip(queries, distances, neighbors, strict=True):
        found = index.nearest(query[None], 5)
        assert [each.similarity for each in found] == pytest.approx(1 - far, abs=FP16)
        assert {each.row for each in found[:1]} <= set((rows[:2] + 3).tolist())  # but for rounding
        assert [each.label for each in found] == ["ab"[(each.row - 3) % 2] for each in found]
    fifth = index.kth_neighbor_similarities(queries)
    assert fifth == pytest.approx(1 - distances[:, 4], abs=FP16)


def test_sparse_neighbors_are_those_of_scikit_learn() -> None:
    vectorizer = TfidfVectorizer(vocabulary=WORDS)
    tfidf = vectorizer.fit_transform(random_texts(100))
    queries = vectorizer.transform([*random_texts(20, seed=1), "unknown words only"])
    index = index_of(SparseVectors.from_states(3 * tfidf), np.zeros(0, dtype=np.float32))
    reference = NearestNeighbors(n_neighbors=5, metric="cosine").fit(tfidf)
    distances, _ = reference.kneighbors(queries)
    for i, far in enumerate(distances):
        found = index.nearest(queries[i], 5)
        assert [each.similarity for each in found] == pytest.approx(1 - far, abs=FP16)
    assert index.kth_neighbor_similarities(queries)[-1] == 0


def test_a_training_text_is_nearest_to_itself() -> None:
    states = random_states(50)
    index = index_of(DenseVectors.from_states(states), np.zeros(0, dtype=np.float32))
    for i, state in enumerate(states):
        [first, *_] = index.nearest(state[None], 3)
        assert first.row == i + 3
        assert first.similarity == pytest.approx(1, abs=FP16)


# -- The threshold --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held_out", "position", "share"), [(20, 1, 1 / 21), (99, 1, 0.01), (853, 8, 8 / 854)]
)
def test_threshold_is_an_order_statistic(held_out: int, position: int, share: float) -> None:
    similarities = np.arange(held_out, dtype=np.float32)
    threshold = replace(dense(), held_out=similarities).threshold
    assert threshold is not None
    assert threshold.similarity == position - 1
    assert threshold.held_out == held_out
    assert threshold.expected_share == pytest.approx(share)


def test_few_held_out_texts_give_no_threshold() -> None:
    index = replace(dense(), held_out=np.zeros(19, dtype=np.float32))
    assert index.threshold is None
    assert index.manifest_entry() == {"examples": 60, "held_out_split": "validation"}


def test_threshold_of_a_linear_model_is_above_the_least_similarity() -> None:
    """A text without known terms has the similarity 0, and nothing is below that."""
    similarities = np.array([0.0] * 7 + [0.2] + [0.5] * 91, dtype=np.float32)
    index = replace(sparse(), held_out=similarities)
    threshold = index.threshold
    assert threshold is not None
    assert astuple(threshold) == (pytest.approx(0.2), 99, pytest.approx(0.08))
    [unknown] = index.kth_neighbor_similarities(csr_matrix((1, len(WORDS))))
    assert unknown < threshold.similarity
    other = replace(dense(), held_out=similarities).threshold
    assert other is not None
    assert astuple(other) == (0, 99, pytest.approx(0.01))


def test_held_out_texts_without_known_terms_give_no_threshold() -> None:
    index = replace(sparse(), held_out=np.zeros(99, dtype=np.float32))
    assert index.threshold is None


@pytest.mark.parametrize("held_out", [30, 150, 600])
def test_expected_share_of_familiar_texts_is_unfamiliar(held_out: int) -> None:
    rng = np.random.default_rng(0)
    shares, expected = [], 0.0
    for _ in range(400):
        similarities = np.tanh(rng.gumbel(size=held_out + 300)).astype(np.float32)
        index = replace(dense(4), held_out=np.sort(similarities[:held_out]))
        threshold = index.threshold
        assert threshold is not None
        shares.append(np.mean(similarities[held_out:] < threshold.similarity))
        expected = threshold.expected_share
    standard_error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) == pytest.approx(expected, abs=4 * standard_error)


# -- Which examples are stored --------------------------------------------------------------------


def examples_of(count: int, labels: int = 2) -> list[Example]:
    return [Example(i + 1, f"text {i // 2}", min(i % 10, labels - 1)) for i in range(count)]


def test_sample_is_stratified_and_has_no_duplicates() -> None:
    examples = examples_of(6000)
    chosen = [examples[i] for i in sample_example_indices(examples)]
    assert len({each.text for each in chosen}) == len(chosen) == MAX_EXAMPLES
    texts = {each.text: each.label for each in examples[::-1]}
    share = Counter(texts.values())[0] / len(texts)
    assert Counter(each.label for each in chosen)[0] == pytest.approx(share * MAX_EXAMPLES, abs=100)


def test_sample_does_not_depend_on_the_order() -> None:
    examples = examples_of(3000)
    backwards = examples[::-1]
    chosen = {examples[i].text for i in sample_example_indices(examples)}
    assert chosen == {backwards[i].text for i in sample_example_indices(backwards)}


def test_more_labels_than_examples() -> None:
    examples = [Example(i + 1, f"text {i}", i) for i in range(1200)]
    assert len(sample_example_indices(examples)) == MAX_EXAMPLES


def test_sample_of_label_sets_and_pairs() -> None:
    examples = [Example(i + 1, "the same", (i % 3,), f"another {i}") for i in range(1100)]
    assert len(sample_example_indices(examples)) == MAX_EXAMPLES


def test_small_sets_are_stored_whole() -> None:
    examples = examples_of(40)
    assert len(sample_example_indices(examples)) == 20
    assert sample_held_out_indices(7).tolist() == list(range(7))
    assert len(np.unique(sample_held_out_indices(5000))) == nearest_examples.MAX_HELD_OUT


def test_vectors_are_bounded() -> None:
    wide = DenseVectors.from_states(np.ones((1000, 2048), dtype=np.float32))
    long = SparseVectors.from_states(csr_matrix(np.ones((1000, 700))))
    for vectors in (wide, long):
        assert 400 < vectors.shape[0] < 500
        tensors = vectors.tensors()
        assert sum(each.nbytes for each in tensors.values()) <= MAX_VECTOR_BYTES + 20_000


def test_labels_are_those_of_rows() -> None:
    examples = [Example(7, "one", (0, 2)), Example(9, "two", ())]
    index = nearest_examples.build_index(
        examples,
        MultiLabel(("a", "b", "c")),
        DenseVectors.from_states(random_states(2)),
        Split.TEST,
        random_states(3, seed=1),
    )
    assert (index.rows, index.labels) == ((7, 9), ('["a", "c"]', "[]"))
    assert (np.diff(index.held_out) >= 0).all()
    assert len(index.held_out) == 3
    single = nearest_examples.build_index(
        [Example(1, "one", 1)],
        SingleLabel(("no", "yes")),
        index.vectors,
        Split.TEST,
        np.ones((1, 24)),
    )
    assert single.labels == ("yes",)


# -- Files ----------------------------------------------------------------------------------------


@pytest.fixture(params=[dense, sparse], ids=["dense", "sparse"])
def index(request: pytest.FixtureRequest) -> ExampleIndex:
    made: ExampleIndex = request.param()
    return made


def save(directory: Path, index: ExampleIndex) -> None:
    nearest_examples.save_index(directory, index)
    manifest.create_and_save(directory, {})


def seal(directory: Path) -> None:
    """Write the manifest anew, as if the files had been written like this."""
    (directory / manifest.MANIFEST_FILE).unlink()
    manifest.create_and_save(directory, {})


def test_saved_index_finds_the_same(index: ExampleIndex, tmp_path: Path) -> None:
    save(tmp_path, index)
    again = nearest_examples.load_index(tmp_path)
    queries = random_states(5, seed=2)
    if isinstance(index.vectors, SparseVectors):
        queries = TfidfVectorizer(vocabulary=WORDS).fit_transform(random_texts(5, seed=2))
    for i in range(5):
        assert again.nearest(queries[i : i + 1], 5) == index.nearest(queries[i : i + 1], 5)
    assert again.threshold == index.threshold
    assert again.manifest_entry() == index.manifest_entry()


def test_changed_file_is_corrupt(index: ExampleIndex, tmp_path: Path) -> None:
    save(tmp_path, index)
    with (tmp_path / VECTORS_FILE).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ArtifactCorrupt, match=f"{VECTORS_FILE} has changed"):
        nearest_examples.load_index(tmp_path)


def test_artifact_without_an_index(tmp_path: Path) -> None:
    manifest.create_and_save(tmp_path, {})
    with pytest.raises(NoNearestExamples, match="has no training examples"):
        nearest_examples.load_index(tmp_path)


def edit(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        content = json.loads((directory / INDEX_FILE).read_text())
        change(content)
        (directory / INDEX_FILE).write_text(json.dumps(content))

    return apply


def tensors(change: Callable[[Tensors], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        found = load_file(directory / VECTORS_FILE)
        change(found)
        save_file(found, directory / VECTORS_FILE)

    return apply


def not_a_number(found: Tensors) -> None:
    name = "vectors" if "vectors" in found else "data"
    found[name] = found[name].copy()
    found[name].flat[0] = np.nan


def bfloat16_vectors(directory: Path) -> None:
    """numpy has no such type."""
    vectors = {"vectors": torch.zeros(2, 3, dtype=torch.bfloat16)}
    save_torch_file(vectors, directory / VECTORS_FILE)


def other_type(found: Tensors) -> None:
    name = "vectors" if "vectors" in found else "data"
    found[name] = found[name].astype(np.float64)


@pytest.mark.parametrize(
    "damage",
    [
        edit(lambda content: content["rows"].pop()),
        edit(lambda content: content["labels"].append("x")),
        edit(lambda content: content.update(width=content["width"] - 1)),
        edit(lambda content: content.update(kind="other")),
        edit(lambda content: content.update(format=2)),
        edit(lambda content: content.update(more=1)),
        edit(lambda content: content.update(rows=["1"] * len(content["rows"]))),
        tensors(lambda found: found.pop("held_out")),
        tensors(lambda found: found.update(held_out=found["held_out"].astype(np.float64))),
        tensors(not_a_number),
        tensors(other_type),
        bfloat16_vectors,
        lambda directory: (directory / VECTORS_FILE).unlink(),
        lambda directory: (directory / INDEX_FILE).write_text("{"),
        lambda directory: (directory / VECTORS_FILE).write_bytes(b"x" * 100),
    ],
)
def test_malformed_index_is_corrupt(
    index: ExampleIndex, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, index)
    damage(tmp_path)
    seal(tmp_path)
    with pytest.raises(ArtifactCorrupt, match="nearest examples are invalid"):
        nearest_examples.load_index(tmp_path)


def test_column_beyond_the_width_is_corrupt(tmp_path: Path) -> None:
    save(tmp_path, sparse())

    def change(found: Tensors) -> None:
        found["indices"] = found["indices"].copy()
        found["indices"][0] = 999

    tensors(change)(tmp_path)
    seal(tmp_path)
    with pytest.raises(ArtifactCorrupt, match="nearest examples are invalid"):
        nearest_examples.load_index(tmp_path)


def test_few_examples_have_no_fifth() -> None:
    states = random_states(3)
    index = index_of(DenseVectors.from_states(states), np.zeros(0, dtype=np.float32))
    [similarity] = index.kth_neighbor_similarities(states[:1])
    assert similarity == index.nearest(states[:1], 5)[-1].similarity
