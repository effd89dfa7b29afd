"""Whether an engine gives the logits that were stored with the artifact."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lora_core import saved_predictions
from lora_core.errors.artifact import EngineDisagrees

# Of a logit, however large, by the precision in the name of the engine.
TOLERANCE = {
    "fp64": saved_predictions.TOLERANCE,
    "fp32": saved_predictions.TOLERANCE,
    "bf16": 1e-2,
}


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Predictor(Protocol):
    """What is needed of a loaded model, of whatever kind."""

    @property
    def engine(self) -> _Named: ...

    def encode(self, texts: Sequence[str]) -> list[Any]: ...

    def forward(self, items: Sequence[Any]) -> Any: ...


def check(predictor: Predictor, directory: Path) -> float:
    """The largest difference of a logit. Raises `EngineDisagrees` if it is too large, or NaN."""
    texts, kept = saved_predictions.load_golden(directory)
    logits = np.asarray(predictor.forward(predictor.encode(texts)))
    engine = predictor.engine.name
    limit = TOLERANCE[engine.rpartition("-")[2]]
    difference, _ = saved_predictions.compare(logits, kept)
    same = bool((logits.argmax(-1) == kept.argmax(-1)).all())
    if not difference <= limit or not same:
        raise EngineDisagrees(engine=engine, difference=difference, tolerance=limit)
    return difference
