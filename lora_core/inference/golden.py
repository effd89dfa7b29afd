"""Whether an engine gives the logits that were stored with the artifact."""

from pathlib import Path

from lora_core import artifact
from lora_core.errors.artifact import EngineDisagrees
from lora_core.inference.predictor import Predictor

# Of a logit, however large, by the precision in the name of the engine.
TOLERANCE = {"fp32": artifact.TOLERANCE, "bf16": 1e-2}


def check(predictor: Predictor, directory: Path) -> float:
    """The largest difference of a logit. Raises `EngineDisagrees` if it is too large, or NaN."""
    texts, kept = artifact.load_golden(directory)
    logits = predictor.forward(predictor.encode(texts)).numpy()
    engine = predictor.engine.name
    limit = TOLERANCE[engine.rpartition("-")[2]]
    difference, _ = artifact.compare(logits, kept)
    same = bool((logits.argmax(-1) == kept.argmax(-1)).all())
    if not difference <= limit or not same:
        raise EngineDisagrees(engine=engine, difference=difference, tolerance=limit)
    return difference
