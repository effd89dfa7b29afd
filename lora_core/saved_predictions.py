"""The answers that an artifact keeps: `golden.json` and `predictions/*.jsonl`. Needs no torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Example

GOLDEN_TEXTS = 16
TOLERANCE = 1e-4  # see `compare`; for what is computed in float32


def compare(
    found: NDArray[np.floating[Any]], kept: NDArray[np.float32], tolerance: float = TOLERANCE
) -> tuple[float, float]:
    """The largest difference of logits (texts, labels), and the limit for it.

    The limit is `tolerance` of the largest kept logit, and at least `tolerance` itself. Only
    `difference <= limit` tells that they agree: a difference may be NaN.
    """
    difference = float(np.abs(found - kept).max())
    return difference, tolerance * max(1.0, float(np.abs(kept).max()))


def save_golden(directory: Path, texts: Sequence[str], logits: NDArray[np.floating[Any]]) -> None:
    """Inputs with the logits of the model: what any other engine must reproduce."""
    rows = [
        {"text": text, "logits": [float(x) for x in row]}
        for text, row in zip(texts[:GOLDEN_TEXTS], logits[:GOLDEN_TEXTS], strict=True)
    ]
    write_json(directory / "golden.json", rows)


def load_golden(directory: Path) -> tuple[list[str], NDArray[np.float32]]:
    """What `save_golden` wrote: texts, and logits (texts, labels)."""
    rows = json.loads((directory / "golden.json").read_text(encoding="utf-8"))
    logits = np.array([row["logits"] for row in rows], dtype=np.float32)
    return [row["text"] for row in rows], logits


def save_predictions(
    directory: Path, split: str, examples: Iterable[Example], logits: NDArray[np.float32]
) -> None:
    """One line a text: row in the source, true and given label, logits."""
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
    """A file of one JSON value, for people too."""
    path.write_text(
        json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False), encoding="utf-8"
    )
