"""The predictions in an artifact: `golden.json` and `predictions/*.jsonl`. Needs no torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Example

GOLDEN_TEXTS = 16
TOLERANCE = 1e-4  # for logits computed in float32; see `compare_logits`


def compare_logits(
    computed: NDArray[np.floating[Any]], saved: NDArray[np.float32], tolerance: float = TOLERANCE
) -> tuple[float, float]:
    """Return the largest difference of logits (texts, labels), and the limit for it.

    The limit is `tolerance` times the largest saved logit, and at least `tolerance`. Test
    `difference <= limit`, which is false for NaN.
    """
    difference = float(np.abs(computed - saved).max())
    return difference, tolerance * max(1.0, float(np.abs(saved).max()))


def save_golden(directory: Path, texts: Sequence[str], logits: NDArray[np.floating[Any]]) -> None:
    """Save some texts with their logits, which every inference engine must reproduce."""
    rows = [
        {"text": text, "logits": [float(x) for x in row]}
        for text, row in zip(texts[:GOLDEN_TEXTS], logits[:GOLDEN_TEXTS], strict=True)
    ]
    write_json(directory / "golden.json", rows)


def load_golden(directory: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Load the texts and logits (texts, labels) of `save_golden`."""
    rows = json.loads((directory / "golden.json").read_text(encoding="utf-8"))
    logits = np.array([row["logits"] for row in rows], dtype=np.float32)
    return [row["text"] for row in rows], logits


def save_predictions(
    directory: Path, split: str, examples: Iterable[Example], logits: NDArray[np.float32]
) -> None:
    """Write one line per text: its row in the source, true and predicted label, logits."""
    (directory / "predictions").mkdir(exist_ok=True)
    with (directory / "predictions" / f"{split}.jsonl").open("w", encoding="utf-8") as file:
        for example, row in zip(examples, logits, strict=True):
            line = {
                "row": example.row,
                "label": example.label,
                "predicted": int(row.argmax()),
                "logits": [round(float(x), 6) for x in row],
            }
            file.write(json.dumps(line, allow_nan=False) + "\n")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented so that people can read it."""
    path.write_text(
        json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False), encoding="utf-8"
    )
