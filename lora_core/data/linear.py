"""The linear rival: TF-IDF of words and word pairs, and logistic regression, on the same parts.

It costs seconds and is hard to beat on long texts, so every run reports it beside its own result.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from lora_core.cache import cache_dir
from lora_core.data.records import Example, Splits
from lora_core.data.rows import Row
from lora_core.data.split import cap
from lora_core.disk import new_entry
from lora_core.events import RivalFitted

MAX_TEXTS = 20_000
# Best or within noise of it on both samples, with a third of the terms that min_df=1 has.
TERMS = {"ngram_range": (1, 2), "sublinear_tf": True, "min_df": 2}
FIT = {"C": 4.0, "max_iter": 1000}
FIGURES = "macro F1 of the classes that occur"  # what is kept is made anew when they change


def fit(splits: Splits) -> RivalFitted:
    """The rival's figures on these parts, from the cache if they have been seen.

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
    settings = f"{splits.digest}\0{MAX_TEXTS}\0{TERMS}\0{FIT}\0{FIGURES}\0{sklearn.__version__}"
    return hashlib.sha256(settings.encode()).hexdigest()


def _fit(splits: Splits) -> RivalFitted:
    start = time.perf_counter()
    train = _capped(splits.train)
    validation, test = answers(train, [splits.validation, splits.test])
    return RivalFitted(
        validation=_figures(splits.validation, validation),
        test=_figures(splits.test, test),
        train_texts=len(train),
        seconds=round(time.perf_counter() - start, 3),
        cached=False,
    )


def answers(
    train: Sequence[Example], parts: Sequence[Sequence[Example]]
) -> list[NDArray[np.int64]]:
    """Label indices for the texts of each part."""
    labels = np.array([example.label for example in train])
    vectorizer = TfidfVectorizer(**TERMS)
    try:
        terms = vectorizer.fit_transform([example.text for example in train])
    except ValueError:  # no term stands in two texts: all that is left is the most frequent label
        most_frequent = np.bincount(labels).argmax()
        return [np.full(len(part), most_frequent) for part in parts]
    model = LogisticRegression(**FIT).fit(terms, labels)
    return [model.predict(vectorizer.transform([e.text for e in part])) for part in parts]


def _capped(train: Sequence[Example]) -> list[Example]:
    if len(train) <= MAX_TEXTS:
        return list(train)
    rows = [Row(i, example.text, str(example.label)) for i, example in enumerate(train)]
    return [train[row.number] for row in cap(rows, MAX_TEXTS, of=len(rows), seed=0)]


def _figures(part: Sequence[Example], predicted: NDArray[np.int64]) -> dict[str, float]:
    truth = [example.label for example in part]
    macro_f1 = f1_score(truth, predicted, average="macro", zero_division=0.0)
    return {"accuracy": float(accuracy_score(truth, predicted)), "macro_f1": float(macro_f1)}


def _read(path: Path) -> RivalFitted | None:
    try:
        found = RivalFitted.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return found.model_copy(update={"cached": True})
