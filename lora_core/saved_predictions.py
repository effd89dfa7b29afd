"""The predictions in an artifact: `golden.json` and `predictions/*.jsonl`. Needs no torch.

Also checks that an engine reproduces those in `golden.json`.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lora_core.atomic_files import write_indented_json
from lora_core.data.split import Example
from lora_core.errors.artifact import EngineOutputMismatch
from lora_core.specs.data import Split
from lora_core.specs.text_input import TextInput, text_or_pair, text_to_dict
from lora_core.tasks.base import Task
from lora_core.tasks.targets import Target

SplitLogits = dict[Split, NDArray[np.float32]]  # each (texts, outputs)

GOLDEN_TEXT_COUNT = 16
TOLERANCE = 1e-4  # for logits computed in float32; see `logit_difference_and_limit`


def logit_difference_and_limit(
    computed: NDArray[np.floating[Any]], saved: NDArray[np.float32], tolerance: float = TOLERANCE
) -> tuple[float, float]:
    """Return the largest difference of logits (texts, labels), and the limit for it.

    The limit is `tolerance` times the largest saved logit, and at least `tolerance`. Test
    `difference <= limit`, which is false for NaN.
    """
    difference = float(np.abs(computed - saved).max())
    return difference, tolerance * max(1.0, float(np.abs(saved).max()))


def save_golden_predictions(
    directory: Path, texts: Sequence[TextInput], logits: NDArray[np.floating[Any]]
) -> None:
    """Save some texts with their logits, which every inference engine must reproduce."""
    rows = [
        {**text_to_dict(text), "logits": [float(x) for x in row]}
        for text, row in zip(texts[:GOLDEN_TEXT_COUNT], logits[:GOLDEN_TEXT_COUNT], strict=True)
    ]
    write_indented_json(directory / "golden.json", rows)


def load_golden_predictions(directory: Path) -> tuple[list[TextInput], NDArray[np.float32]]:
    """Load the texts and logits (texts, labels) of `save_golden_predictions`."""
    rows = json.loads((directory / "golden.json").read_text(encoding="utf-8"))
    logits = np.array([row["logits"] for row in rows], dtype=np.float32)
    return [text_or_pair(row["text"], row.get("text_pair")) for row in rows], logits


def save_predictions(
    directory: Path,
    split: str,
    examples: Iterable[Example],
    logits: NDArray[np.float32],
    predicted: Iterable[Target],
) -> None:
    """Write one line per text: its row in the source, true and predicted target, logits."""
    (directory / "predictions").mkdir(exist_ok=True)
    with (directory / "predictions" / f"{split}.jsonl").open("w", encoding="utf-8") as file:
        for example, row, prediction in zip(examples, logits, predicted, strict=True):
            line = {
                "row": example.row,
                "label": example.label,
                "predicted": prediction,
                "logits": [round(float(x), 6) for x in row],
            }
            file.write(json.dumps(line, allow_nan=False) + "\n")


# -- Whether an engine reproduces the golden predictions -------------------------------------------


# By the precision in the engine's name. Relative, because rounding is: a model with a larger head
# has larger logits, and larger differences, in every engine (docs/decisions/0069).
ENGINE_TOLERANCES = {
    "fp64": TOLERANCE,
    "fp32": TOLERANCE,
    "bf16": 1e-2,
}


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


class GoldenCheckPredictor(Protocol):
    """The part of a predictor of either kind that the check uses."""

    @property
    def engine(self) -> _HasName: ...

    @property
    def task(self) -> Task: ...

    def encode(self, texts: Sequence[TextInput]) -> list[Any]: ...

    def forward(self, items: Sequence[Any]) -> Any: ...


def check_golden_predictions(predictor: GoldenCheckPredictor, directory: Path) -> float:
    """Return the largest difference of a logit from the golden ones.

    Raises `EngineOutputMismatch` if it is NaN or exceeds the limit (`logit_difference_and_limit`),
    or if the label of a single-label task differs.
    """
    texts, golden = load_golden_predictions(directory)
    logits = np.asarray(predictor.forward(predictor.encode(texts)))
    engine = predictor.engine.name
    tolerance = ENGINE_TOLERANCES[engine.rpartition("-")[2]]
    difference, limit = logit_difference_and_limit(logits, golden, tolerance)
    same_labels = bool((logits.argmax(-1) == golden.argmax(-1)).all())
    if not difference <= limit or (predictor.task.type == "single_label" and not same_labels):
        raise EngineOutputMismatch(engine=engine, difference=difference, tolerance=limit)
    return difference
