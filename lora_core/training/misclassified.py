"""The answers of a run that are most wrong: sure of a label that is not the true one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Example

KEPT = 10_000  # of each part
EXCERPT = 2000  # characters of its text
FOLDER = "mistakes"


class Mistake(NamedTuple):
    """One text that was answered wrongly."""

    place: int  # of the text in its part
    predicted: int
    score: float  # probability of the label that was answered
    true_score: float  # and of the true one


def worst(
    logits: NDArray[np.float32], labels: NDArray[np.int64], *, temperature: float, most: int
) -> list[Mistake]:
    """At most so many, the surest first; logits are (texts, classes)."""
    z = logits.astype(np.float64) / temperature
    scores = np.exp(z - z.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")]
    return [
        Mistake(int(i), int(predicted[i]), scores[i, predicted[i]], scores[i, labels[i]])
        for i in surest[:most]
    ]


def save(
    directory: Path,
    split: str,
    examples: Sequence[Example],
    logits: NDArray[np.float32],
    names: Sequence[str],
    temperature: float,
) -> None:
    """The worst answers to these examples, one a line, with the beginnings of the texts.

    So they can be read when the data are gone. `names` are those of the labels.
    """
    truth = np.array([example.label for example in examples])
    lines = []
    for found in worst(logits, truth, temperature=temperature, most=KEPT):
        example = examples[found.place]
        line = {
            "row": example.row,
            "text": example.text[:EXCERPT],
            "cut": len(example.text) > EXCERPT,
            "label": names[example.label],
            "predicted": names[found.predicted],
            "score": found.score,
            "true_score": found.true_score,
        }
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    (directory / FOLDER).mkdir(exist_ok=True)
    (directory / FOLDER / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
