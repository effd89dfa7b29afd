"""The linear model (`lora_core.linear`) on the same parts, with its default settings.

It costs seconds and is hard to beat on long texts, so every run on a base reports it beside its own
result.
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

from lora_core.atomic_files import new_entry
from lora_core.cache import cache_dir
from lora_core.data.records import Example, Splits
from lora_core.data.rows import Row
from lora_core.data.split import cap
from lora_core.events import RivalFitted
from lora_core.linear import model as linear
from lora_core.linear.limits import MAX_TERMS
from lora_core.specs.frozen import Frozen, Int
from lora_core.specs.method import LinearSpec

MAX_TEXTS = 20_000
MAX_CHARACTERS = 50_000_000  # of the texts that a model learns from: a fit takes 17 bytes for each
SPEC = LinearSpec()
FIGURES = "macro F1 of the classes that occur, answers"  # what is kept is made anew with these


class LinearFit(Frozen):
    """What is kept of it: its figures, and the label that it gives to each test text."""

    figures: RivalFitted
    test: tuple[Int, ...]


def fit(splits: Splits) -> LinearFit:
    """The rival on these parts, from the cache if they have been seen.

    `seconds` are those of the fit, even then. Raises `DiskFull`.
    """
    path = cache_dir() / "linear" / f"{_key(splits)}.json"
    found = _read(path)
    if found is None:
        found = _fit(splits)
        with new_entry(path) as unfinished:
            unfinished.write_text(found.model_dump_json(), encoding="utf-8")
    return found


def _key(splits: Splits) -> str:
    limits = (MAX_TEXTS, MAX_CHARACTERS, MAX_TERMS)
    settings = f"{splits.digest}\0{limits}\0{SPEC}\0{FIGURES}\0{sklearn.__version__}"
    return hashlib.sha256(settings.encode()).hexdigest()


def _fit(splits: Splits) -> LinearFit:
    start = time.perf_counter()
    train = within_memory(capped(splits.train, MAX_TEXTS), len(splits.labels))
    validation, test = answers(train, [splits.validation, splits.test])
    figures = RivalFitted(
        validation=_figures(splits.validation, validation),
        test=_figures(splits.test, test),
        train_texts=len(train),
        seconds=round(time.perf_counter() - start, 3),
        cached=False,
    )
    return LinearFit(figures=figures, test=tuple(test.tolist()))


def answers(
    train: Sequence[Example], parts: Sequence[Sequence[Example]]
) -> list[NDArray[np.int64]]:
    """Label indices for the texts of each part."""
    model = fit_examples(train, SPEC, classes=1 + max(example.label for example in train))
    return [model.logits([e.text for e in part]).argmax(axis=1) for part in parts]


def fit_examples(
    train: Sequence[Example], spec: LinearSpec, *, classes: int, balanced: bool = False
) -> linear.LinearModel:
    """A model that has learned from these, as `lora_core.linear.model.fit` does."""
    texts = [example.text for example in train]
    labels = np.array([example.label for example in train])
    return linear.fit(texts, labels, spec, classes=classes, balanced=balanced)


def capped(train: Sequence[Example], most: int) -> list[Example]:
    """At most so many of the texts, labels in balance."""
    if len(train) <= most:
        return list(train)
    rows = [Row(i, example.text, str(example.label)) for i, example in enumerate(train)]
    return [train[row.number] for row in cap(rows, most, of=len(rows), seed=0)]


def within_memory(train: Sequence[Example], labels: int) -> list[Example]:
    """As many of the texts as have at most `MAX_CHARACTERS`, labels in balance."""
    characters = sum(len(example.text) for example in train)
    if characters <= MAX_CHARACTERS:
        return list(train)
    return capped(train, max(labels, len(train) * MAX_CHARACTERS // characters))


def _figures(part: Sequence[Example], predicted: NDArray[np.int64]) -> dict[str, float]:
    truth = [example.label for example in part]
    macro_f1 = f1_score(truth, predicted, average="macro", zero_division=0.0)
    return {"accuracy": float(accuracy_score(truth, predicted)), "macro_f1": float(macro_f1)}


def _read(path: Path) -> LinearFit | None:
    try:
        found = LinearFit.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found.model_copy(update={"figures": found.figures.model_copy(update={"cached": True})})
