"""What must be equal between an unbroken run and one that was resumed: all but times."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_core import manifest
from lora_core.events import CheckpointSaved, Evaluated, Event, RivalFitted, StepLogged

TIMES = {
    "train_seconds",
    "total_seconds",
    "reviews_per_second",
    "tokens_per_second",
    "peak_memory_mb",
    "seconds",
    "cached",
    "features_found",
}


def story(events: Iterable[Event]) -> list[str]:
    """Every figure that was told, to the last bit, in order."""
    kept = (event for event in events if isinstance(event, StepLogged | Evaluated | RivalFitted))
    return [json.dumps(_exact(event.model_dump(mode="json"))) for event in kept]


def stands(events: list[Event], step: int) -> list[Event]:
    """What was told before the checkpoint of this step: the rest is told again."""
    saved = next(
        i for i, e in enumerate(events) if isinstance(e, CheckpointSaved) and e.step == step
    )
    return events[:saved]


def product(out: Path) -> dict[str, Any]:
    """The digest of every file of an artifact, and the figures in its manifest."""
    facts = manifest.verify(out)
    files = {name: entry["sha256"] for name, entry in facts["files"].items()}
    return {"files": files, "metrics": _exact(facts["metrics"])}


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _exact(each) for name, each in value.items() if name not in TIMES}
    if isinstance(value, list):
        return [_exact(each) for each in value]
    return value.hex() if isinstance(value, float) else value
