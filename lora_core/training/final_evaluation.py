"""The texts that a run is judged by at its end."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from lora_core.data import linear_baseline
from lora_core.data.records import Example
from lora_core.events import Evaluated, Observer, Phase, finite
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks import calibration
from lora_core.tasks.metrics import CURVES
from lora_core.training import distributed, evaluate
from lora_core.training.loop import Trained
from lora_core.training.prepare import Prepared
from lora_core.training.progress_reporter import Pulse


def texts(spec: TrainSpec, split: Split, there: int) -> NDArray[np.int64]:
    """Numbers of the texts of a part of `there`, ascending: all of them; of a trial so many.

    These are drawn at random, since a part may stand in the order of its labels, and the same for
    every cell of a sweep.
    """
    every = np.arange(there)
    asked = spec.trial.validation_texts if spec.trial else None
    if split is not Split.VALIDATION or asked is None or asked >= there:
        return every
    return np.sort(np.random.default_rng(0).permutation(every)[:asked])


# MERGED lora_core.training.final_evaluation
# Which texts of a part were answered rightly: what two runs are compared by, text by text.


class Graded(TypedDict):
    """As it stands in a manifest."""

    texts_sha256: str  # the same texts with the same labels in the same order have the same
    count: int
    correct: str  # a bit for each text, the first is the highest of its byte; base64


def grade(
    examples: Sequence[Example], labels: Sequence[str], logits: NDArray[np.float32]
) -> Graded:
    """`logits` (texts, classes) are the answers to these examples, in their order."""
    truth = np.array([example.label for example in examples])
    right = np.packbits(logits.argmax(axis=1) == truth)
    digest = hashlib.sha256()
    for example in examples:
        text = f"{labels[example.label]}\0{example.text}".encode()
        digest.update(len(text).to_bytes(8, "big"))  # so that no text can pass for two
        digest.update(text)
    return Graded(
        texts_sha256=digest.hexdigest(),
        count=len(examples),
        correct=base64.b64encode(right.tobytes()).decode(),
    )


# MERGED lora_core.training.final_evaluation
# The answers of a run that are most wrong: sure of a label that is not the true one.

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


# MERGED lora_core.training.final_evaluation
# How good the weights of a run are in the end.

Logits = dict[Split, NDArray[np.float32]]


def of_trial(prepared: Prepared, trained: Trained) -> tuple[dict[str, Any], Logits]:
    """Figures and logits of the last weights, on the validation texts of the trial."""
    logits: Logits = {Split.VALIDATION: trained.validation_logits}
    return _reports(prepared, logits), logits


def of_run(
    prepared: Prepared, trained: Trained, observer: Observer, pulse: Pulse
) -> tuple[dict[str, Any], Logits]:
    """Figures and logits of the best weights on validation and test, beside the linear rival's.

    The temperature is fitted on validation alone, and is 1 where that has too few texts.
    """
    pulse.enter(Phase.LINEAR_RIVAL)
    with distributed.main_first():
        rival = linear_baseline.fit(prepared.splits).figures
    if prepared.cross_validated is not None:  # it has learned from the validation texts
        rival = rival.model_copy(update={"validation": {}})
    observer.on_event(rival)
    pulse.enter(Phase.EVALUATING)
    logits: Logits = {
        Split.VALIDATION: trained.validation_logits,
        Split.TEST: _answers(prepared, Split.TEST, pulse),
    }
    validation_labels = prepared.parts[Split.VALIDATION].labels
    calibrated = calibration.fitted(trained.validation_logits, validation_labels)
    temperature = calibrated["temperature"]
    for split, rows in logits.items():
        labels = prepared.parts[split].labels
        calibrated[split] = calibration.compare(rows, labels, temperature)
    figures = {
        "linear": rival.model_dump(mode="json", exclude={"event"}),
        "calibration": calibrated,
        **_reports(prepared, logits),
    }
    if prepared.spec.result.train_figures:
        train = _answers(prepared, Split.TRAIN, pulse)
        figures |= _reports(prepared, {Split.TRAIN: train})
    test = {name: figures[Split.TEST][name] for name in CURVES}
    observer.on_event(Evaluated(step=trained.best_step, split=Split.TEST, metrics=finite(test)))
    return figures, logits


def graded(prepared: Prepared, logits: Logits) -> dict[str, Any]:
    """Of each part, which texts were answered rightly."""
    return {
        split: grade(answered(prepared, split), prepared.splits.labels, rows)
        for split, rows in logits.items()
    }


def answered(prepared: Prepared, split: Split) -> list[Example]:
    """The examples that a run is judged by."""
    examples = prepared.splits.part(split)
    return [examples[i] for i in texts(prepared.spec, split, len(examples))]


def _answers(prepared: Prepared, split: Split, pulse: Pulse) -> NDArray[np.float32]:
    part, budget = prepared.parts[split], prepared.spec.optim.micro_batch_tokens
    return evaluate.logits(prepared.forward, part, budget=budget, pulse=pulse)


def _reports(prepared: Prepared, logits: Logits) -> dict[str, Any]:
    found = {}
    for split, rows in logits.items():
        part = prepared.parts[split]
        which = texts(prepared.spec, split, len(part))
        found[split.value] = prepared.task.report(rows, part.labels[which])
    return found
