"""Whether an engine gives the logits that were stored with the artifact."""

import json
from pathlib import Path
from typing import Any

import torch

from lora_core.errors import EngineDisagrees
from lora_core.inference.predictor import Predictor

# The largest difference of a logit, by the precision in the name of the engine.
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2, "int8": 3e-2}


def texts_of(directory: Path) -> list[str]:
    """The texts whose logits were stored."""
    return [row["text"] for row in _rows(directory)]


def check(predictor: Predictor, directory: Path) -> float:
    """The largest difference of a logit. Raises `EngineDisagrees` if it is too large, or NaN."""
    rows = _rows(directory)
    expected = torch.tensor([row["logits"] for row in rows])
    found = predictor.forward(predictor.encode([row["text"] for row in rows]))
    difference = float((found - expected).abs().max())
    engine = predictor.engine.name
    tolerance = TOLERANCE[engine.rpartition("-")[2]]
    same = bool((found.argmax(-1) == expected.argmax(-1)).all())
    if not difference <= tolerance or not same:
        raise EngineDisagrees(engine=engine, difference=difference, tolerance=tolerance)
    return difference


def _rows(directory: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((directory / "golden.json").read_text("utf-8"))
    return rows
