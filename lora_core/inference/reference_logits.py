"""Check that an engine reproduces the logits that are stored with an artifact."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lora_core import saved_predictions
from lora_core.errors.artifact import EngineMismatch

# Maximum difference of a logit, however large it is, by the precision in the engine's name.
TOLERANCES = {
    "fp64": saved_predictions.TOLERANCE,
    "fp32": saved_predictions.TOLERANCE,
    "bf16": 1e-2,
}


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


class SupportsForward(Protocol):
    """The part of a predictor of either kind that the check uses."""

    @property
    def engine(self) -> _HasName: ...

    def encode(self, texts: Sequence[str]) -> list[Any]: ...

    def forward(self, items: Sequence[Any]) -> Any: ...


def check_reference_logits(predictor: SupportsForward, directory: Path) -> float:
    """Return the largest difference of a logit from the stored ones.

    Raises `EngineMismatch` if it exceeds the tolerance or is NaN, or if a label differs.
    """
    texts, reference = saved_predictions.load_golden(directory)
    logits = np.asarray(predictor.forward(predictor.encode(texts)))
    engine = predictor.engine.name
    tolerance = TOLERANCES[engine.rpartition("-")[2]]
    difference, _ = saved_predictions.compare_logits(logits, reference)
    same_labels = bool((logits.argmax(-1) == reference.argmax(-1)).all())
    if not difference <= tolerance or not same_labels:
        raise EngineMismatch(engine=engine, difference=difference, tolerance=tolerance)
    return difference
