"""How well a run predicts each text of a split, and the texts that it misclassifies.

The former is stored so that two runs can be compared by text.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from lora_core.data.split import Example
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.primary_metric import Accuracy, Predictions
from lora_core.tasks.several_targets import SeveralTargets, best_constant_error
from lora_core.tasks.targets import Targets

# Of a split of several labels or of numbers, which take many bytes for each text and target: a
# manifest must stay below `metadata.MAX_MANIFEST_BYTES` to be imported. The order of drawn splits
# is random.
MAX_COMPARED_TEXTS = 10_000


class EncodedCorrectness(TypedDict):
    """The correctness of the predictions on one split, as it is stored in a manifest.

    It covers all texts of a single-label task, and the first `MAX_COMPARED_TEXTS` of others; of
    several targets, they share these texts. Arrays are in base64. Bits are packed, the first one
    the highest of its byte.
    """

    texts_sha256: str  # equal only for the same texts with the same labels in the same order
    count: int
    correct: NotRequired[str]  # one bit per text: all of its labels are right; not of numbers
    # Of a multi-label task, compressed by zlib: one bit per text and label, each text in bytes of
    # its own, so that the number of texts tells where the next one starts.
    true_labels: NotRequired[str]
    predicted_labels: NotRequired[str]
    errors: NotRequired[str]  # of a regression: prediction - number, float32, little-endian
    # Of several targets: each as if it were alone, with the error of its best constant prediction
    # for these texts, which its skill refers to (`MeanSkill`).
    targets: NotRequired[dict[str, "EncodedCorrectness"]]
    constant_error: NotRequired[float]


def grade_predictions(
    examples: Sequence[Example], task: Task, predicted: Predictions
) -> EncodedCorrectness:
    """Compare predictions for these examples, in their order, with their targets."""
    if not isinstance(task.metric, Accuracy):
        targets_of_text = len(task.tasks) if isinstance(task, SeveralTargets) else 1
        compared = MAX_COMPARED_TEXTS // targets_of_text
        examples, predicted = examples[:compared], predicted[:compared]
    digest = hashlib.sha256()
    for example in examples:
        texts = [example.text] if example.pair is None else [example.text, example.pair]
        text = "\0".join([task.target_to_label(example.label), *texts]).encode()
        digest.update(len(text).to_bytes(8, "big"))  # so that one text never hashes like two
        digest.update(text)
    stored = EncodedCorrectness(texts_sha256=digest.hexdigest(), count=len(examples))
    targets = task.targets([example.label for example in examples])
    if isinstance(task, SeveralTargets):
        of_targets = {}
        for name, each in task.tasks.items():
            truth = task.values_of(targets, name)
            error = best_constant_error(each, truth) if len(truth) else 0.0
            encoded = _encode_answers(stored, truth, task.values_of(predicted, name))
            of_targets[name] = EncodedCorrectness(**encoded, constant_error=error)
        return {**stored, "targets": of_targets}
    return _encode_answers(stored, targets, predicted)


def _encode_answers(
    stored: EncodedCorrectness, targets: Targets, predicted: Predictions
) -> EncodedCorrectness:
    if np.issubdtype(predicted.dtype, np.floating):
        errors = (predicted - targets).astype("<f4")
        return {**stored, "errors": _encode(errors.tobytes())}
    right = predicted == targets
    if right.ndim == 1:
        return {**stored, "correct": _encode_bits(right)}
    return {
        **stored,
        "correct": _encode_bits(right.all(axis=1)),
        "true_labels": _encode_label_bits(targets > 0),
        "predicted_labels": _encode_label_bits(predicted),
    }


def _encode_bits(bits: NDArray[np.bool_]) -> str:
    return _encode(np.packbits(bits).tobytes())


def _encode_label_bits(bits: NDArray[np.bool_]) -> str:
    return _encode(zlib.compress(np.packbits(bits, axis=1).tobytes()))


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


# -- Misclassified texts, those with the most confident predictions first -------------------------

MAX_SAVED = 10_000  # per split
MAX_SAVED_CHARACTERS = 2000  # of each text
MISCLASSIFIED_FOLDER = "misclassified"


def save_misclassified(
    directory: Path,
    split: str,
    examples: Sequence[Example],
    logits: Logits,
    task: Task,
    calibration: Calibration,
) -> None:
    """Write one JSON line for each misclassified text, with the beginning of the text.

    Of several targets there is one for each target that is wrong. Of a regression these are the
    texts with the largest errors. The file can be read after the data are deleted.
    """
    targets: Targets = task.targets([example.label for example in examples])
    lines = []
    for error in task.mispredictions(logits, targets, calibration)[:MAX_SAVED]:
        example = examples[error.text_index]
        of, label = task, example.label
        if error.target is not None and isinstance(task, SeveralTargets):
            of, label = task.tasks[error.target], label[error.target]
        line: dict[str, Any] = {
            "row": example.row,
            "text": example.text[:MAX_SAVED_CHARACTERS],
            **({} if example.pair is None else {"text_pair": example.pair[:MAX_SAVED_CHARACTERS]}),
            "cut": max(len(example.text), len(example.pair or "")) > MAX_SAVED_CHARACTERS,
            **({} if error.target is None else {"target": error.target}),
            "label": of.target_to_label(label),
            "predicted": of.target_to_label(error.predicted),
            "score": error.score,
            "true_score": error.true_score,
        }
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    (directory / MISCLASSIFIED_FOLDER).mkdir(exist_ok=True)
    (directory / MISCLASSIFIED_FOLDER / f"{split}.jsonl").write_text(
        "".join(lines), encoding="utf-8"
    )
