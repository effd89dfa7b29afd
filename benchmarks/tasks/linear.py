"""TF-IDF and one-vs-rest logistic regression, or ridge for numbers, of scikit-learn."""

import time
from typing import Any

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from benchmarks.tasks import answers
from benchmarks.tasks.plan import Kind, Size
from benchmarks.tasks.sets import load
from lora_core.specs.data import Split


def accuracy(kind: Kind, seed: int, size: Size) -> dict[str, Any]:  # noqa: ARG001 - no chance in it
    """The answers to the test texts, and the seconds of the fit."""
    began = time.monotonic()
    splits = load(kind, size)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit([text for row in splits[Split.TRAIN] for text in (row.text, row.pair or "")])

    def features(split: Split) -> Any:
        first = vectorizer.transform([row.text for row in splits[split]])
        if splits[split][0].pair is None:
            return first
        second = vectorizer.transform([row.pair for row in splits[split]])
        return hstack([first, second, first.multiply(second)]).tocsr()

    target = answers.truth(kind, size, Split.TRAIN)
    if kind == "regression":
        model = Ridge().fit(features(Split.TRAIN), target)
        predict = model.predict
    else:
        model = OneVsRestClassifier(LogisticRegression(C=4.0, max_iter=1000))
        predict = model.fit(features(Split.TRAIN), target).decision_function
    seconds = time.monotonic() - began

    def logits(split: Split) -> np.ndarray[Any, Any]:
        found = predict(features(split)).reshape(len(splits[split]), -1)
        return np.concatenate([-found, found], axis=1) if kind == "pairs" else found

    found = answers.decide(kind, size, logits(Split.VALIDATION), logits(Split.TEST))
    return {"answers": found, "train_seconds": seconds}
