"""Compare an uninterrupted run with a resumed one: everything but times must be equal."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_core import manifest
from lora_core.events import CheckpointSaved, Evaluated, Event, LinearModelFitted, StepLogged

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
    """Return all numbers in events, to the last bit, in order."""
    kept = (
        event for event in events if isinstance(event, StepLogged | Evaluated | LinearModelFitted)
    )
    return [json.dumps(_exact(event.model_dump(mode="json"))) for event in kept]


def events_before(events: list[Event], step: int) -> list[Event]:
    """Return the events before the checkpoint of this step; a resume repeats the others."""
    saved = next(
        i for i, e in enumerate(events) if isinstance(e, CheckpointSaved) and e.step == step
    )
    return events[:saved]


def product(out: Path) -> dict[str, Any]:
    """Return the digest of every file of an artifact, and the metrics in its manifest."""
    facts = manifest.verify(out)
    files = {name: entry["sha256"] for name, entry in facts["files"].items()}
    return {"files": files, "metrics": _exact(facts["metrics"])}


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _exact(each) for name, each in value.items() if name not in TIMES}
    if isinstance(value, list):
        return [_exact(each) for each in value]
    return value.hex() if isinstance(value, float) else value
