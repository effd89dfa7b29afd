"""Which texts of a split a run predicts correctly, and which it misclassifies.

The former is stored so that two runs can be compared by text.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from lora_core.data.split import Example, label_indices


class Correctness(TypedDict):
    """The correctness of all predictions on one split, as it is stored in a manifest."""

    texts_sha256: str  # equal only for the same texts with the same labels in the same order
    count: int
    correct: str  # base64 of one bit per text, the first one the highest of its byte


def encode_correctness(
    examples: Sequence[Example], labels: Sequence[str], logits: NDArray[np.float32]
) -> Correctness:
    """Compare `logits` (texts, classes) with the labels of these examples, in their order."""
    truth = label_indices(examples)
    correct = np.packbits(logits.argmax(axis=1) == truth)
    digest = hashlib.sha256()
    for example in examples:
        texts = [example.text] if example.pair is None else [example.text, example.pair]
        text = "\0".join([labels[example.label], *texts]).encode()
        digest.update(len(text).to_bytes(8, "big"))  # so that one text never hashes like two
        digest.update(text)
    return Correctness(
        texts_sha256=digest.hexdigest(),
        count=len(examples),
        correct=base64.b64encode(correct.tobytes()).decode(),
    )


# -- Misclassified texts, those with the most confident predictions first -------------------------

MAX_SAVED = 10_000  # per split
MAX_SAVED_CHARACTERS = 2000  # of each text
MISCLASSIFIED_FOLDER = "misclassified"


class Misprediction(NamedTuple):
    """One text whose predicted label is not its true label."""

    text_index: int  # of the text in its split
    predicted: int
    score: float  # probability of the predicted label
    true_score: float  # probability of the true label


def most_confident_errors(
    logits: NDArray[np.float32], labels: NDArray[np.int64], *, temperature: float, limit: int
) -> list[Misprediction]:
    """Return at most `limit` errors, the most confident first. Logits are (texts, classes)."""
    z = logits.astype(np.float64) / temperature
    scores = np.exp(z - z.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    ranked = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")]
    return [
        Misprediction(int(i), int(predicted[i]), scores[i, predicted[i]], scores[i, labels[i]])
        for i in ranked[:limit]
    ]


def save_misclassified(
    directory: Path,
    split: str,
    examples: Sequence[Example],
    logits: NDArray[np.float32],
    names: Sequence[str],
    temperature: float,
) -> None:
    """Write one JSON line for each misclassified text, with the beginning of the text.

    The file can be read after the data are deleted. `names` are the names of the labels.
    """
    truth = label_indices(examples)
    lines = []
    for error in most_confident_errors(logits, truth, temperature=temperature, limit=MAX_SAVED):
        example = examples[error.text_index]
        line = {
            "row": example.row,
            "text": example.text[:MAX_SAVED_CHARACTERS],
            **({} if example.pair is None else {"text_pair": example.pair[:MAX_SAVED_CHARACTERS]}),
            "cut": max(len(example.text), len(example.pair or "")) > MAX_SAVED_CHARACTERS,
            "label": names[example.label],
            "predicted": names[error.predicted],
            "score": error.score,
            "true_score": error.true_score,
        }
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    (directory / MISCLASSIFIED_FOLDER).mkdir(exist_ok=True)
    (directory / MISCLASSIFIED_FOLDER / f"{split}.jsonl").write_text(
        "".join(lines), encoding="utf-8"
    )
