"""The linear model (TF-IDF + logistic regression, `lora_core.linear`) as a baseline of every run.

It is trained on the same splits with its default settings. It takes seconds and is hard to beat on
long texts, so every run on a base model reports it next to its own result.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, f1_score

from lora_core.atomic_files import atomic_entry
from lora_core.cache import cache_dir
from lora_core.data.split import Example, Splits, label_indices, rows_of_examples, stratified_subset
from lora_core.events import LinearModelFitted
from lora_core.linear import model as linear
from lora_core.linear.files import MAX_TERMS
from lora_core.specs.fields import FrozenModel, Int
from lora_core.specs.method import LinearSpec

MAX_TEXTS = 20_000
MAX_CHARACTERS = 50_000_000  # of the training texts: a fit takes 17 bytes of memory per character
SPEC = LinearSpec()
# Part of the cache key: change it to invalidate cached results.
METRICS_VERSION = "macro F1 of the classes that occur, answers"


class LinearBaselineResult(FrozenModel):
    """The cached result: its metrics, and the predicted label of each test text."""

    metrics: LinearModelFitted
    test_predictions: tuple[Int, ...]


def evaluate(splits: Splits) -> LinearBaselineResult:
    """Return the baseline for these splits, from the cache if they have been seen before.

    `seconds` is the time of the original fit. Raises `DiskFull`.
    """
    path = cache_dir() / "linear" / f"{_cache_key(splits)}.json"
    result = _read_cached(path)
    if result is None:
        result = _evaluate(splits)
        with atomic_entry(path) as unfinished:
            unfinished.write_text(result.model_dump_json(), encoding="utf-8")
    return result


def _cache_key(splits: Splits) -> str:
    limits = (MAX_TEXTS, MAX_CHARACTERS, MAX_TERMS)
    settings = f"{splits.digest}\0{limits}\0{SPEC}\0{METRICS_VERSION}\0{sklearn.__version__}"
    return hashlib.sha256(settings.encode()).hexdigest()


def _evaluate(splits: Splits) -> LinearBaselineResult:
    start = time.perf_counter()
    train = subsample_to_max_characters(subsample(splits.train, MAX_TEXTS), len(splits.labels))
    validation, test = fit_predict(train, [splits.validation, splits.test])
    metrics = LinearModelFitted(
        validation=_metrics(splits.validation, validation),
        test=_metrics(splits.test, test),
        train_texts=len(train),
        seconds=round(time.perf_counter() - start, 3),
        cached=False,
    )
    return LinearBaselineResult(metrics=metrics, test_predictions=tuple(test.tolist()))


def fit_predict(
    train: Sequence[Example], parts: Sequence[Sequence[Example]]
) -> list[NDArray[np.int64]]:
    """Return label indices for the texts of each split."""
    model = fit_examples(train, SPEC, classes=1 + int(label_indices(train).max()))
    return [model.logits([e.input for e in part]).argmax(axis=1) for part in parts]


def fit_examples(
    train: Sequence[Example], spec: LinearSpec, *, classes: int, balanced: bool = False
) -> linear.LinearModel:
    """Fit a model on examples, as `lora_core.linear.model.fit` does on texts."""
    texts = [example.input for example in train]
    labels = label_indices(train)
    return linear.fit(texts, labels, spec, classes=classes, balanced=balanced)


def subsample(train: Sequence[Example], max_texts: int) -> list[Example]:
    """Return at most `max_texts` of the texts, stratified."""
    if len(train) <= max_texts:
        return list(train)
    rows, task = rows_of_examples(train)
    subset = stratified_subset(rows, max_texts, of=len(rows), seed=0, task=task)
    return [train[row.number] for row in subset]


def subsample_to_max_characters(train: Sequence[Example], labels: int) -> list[Example]:
    """Return as many texts as have at most `MAX_CHARACTERS` in total, stratified."""
    characters = sum(example.characters for example in train)
    if characters <= MAX_CHARACTERS:
        return list(train)
    return subsample(train, max(labels, len(train) * MAX_CHARACTERS // characters))


def _metrics(part: Sequence[Example], predicted: NDArray[np.int64]) -> dict[str, float]:
    truth = label_indices(part)
    macro_f1 = f1_score(truth, predicted, average="macro", zero_division=0.0)
    return {"accuracy": float(accuracy_score(truth, predicted)), "macro_f1": float(macro_f1)}


def _read_cached(path: Path) -> LinearBaselineResult | None:
    try:
        cached = LinearBaselineResult.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return cached.model_copy(update={"metrics": cached.metrics.model_copy(update={"cached": True})})
