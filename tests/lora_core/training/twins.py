"""Compare an uninterrupted run with a resumed one: everything but times must be equal."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lora_core import manifest
from lora_core.errors.training import StopRequested
from lora_core.events import CheckpointSaved, Evaluated, Event, LinearModelFitted, StepLogged
from lora_core.specs.train import TrainSpec
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.encoder import train_encoder
from tests.recording_observer import RecordingObserver

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


def stop_and_resume(described: TrainSpec, folder: Path, *, stop_at: int) -> Path:
    """Stop a run, resume it from its last checkpoint, and return the artifact.

    `stop_at` is that of `RecordingObserver`.
    """
    stopping = RecordingObserver(stop_at)
    settings = CheckpointSettings(folder / "checkpoints", 0.0)
    with pytest.raises(StopRequested):
        train_encoder(
            described,
            out_dir=folder / "stopped",
            observer=stopping,
            stop=stopping,
            checkpoint_settings=settings,
        )
    last = max(settings.directory.iterdir(), key=lambda path: int(path.name.split("-")[1]))
    observer = RecordingObserver()
    train_encoder(
        described,
        out_dir=folder / "resumed",
        observer=observer,
        stop=observer,
        checkpoint_settings=settings,
        resume=last,
    )
    assert observer.all("resumed")
    return folder / "resumed"
