"""The misclassified texts of a run, those with the most confident predictions first."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Example

MAX_SAVED = 10_000  # per split
EXCERPT_CHARACTERS = 2000  # of each text
FOLDER = "mistakes"


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


def save(
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
    truth = np.array([example.label for example in examples])
    lines = []
    for error in most_confident_errors(logits, truth, temperature=temperature, limit=MAX_SAVED):
        example = examples[error.text_index]
        line = {
            "row": example.row,
            "text": example.text[:EXCERPT_CHARACTERS],
            "cut": len(example.text) > EXCERPT_CHARACTERS,
            "label": names[example.label],
            "predicted": names[error.predicted],
            "score": error.score,
            "true_score": error.true_score,
        }
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    (directory / FOLDER).mkdir(exist_ok=True)
    (directory / FOLDER / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
