"""What an event of a training process is in the tables: points of curves, or words."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from app.queue.transitions import Told
from app.storage.store import ArtifactRef
from lora_core.events import (
    CandidateTried,
    Evaluated,
    Event,
    Finished,
    Noted,
    Resumed,
    RivalFitted,
    Selected,
    Started,
    StepLogged,
)
from lora_core.specs.data import Split
from lora_core.specs.method import named

STEP_METRICS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "reviews_per_second",
    "tokens_per_second",
    "peak_memory_mb",
)


class Kept(NamedTuple):
    """A checkpoint that is in the store."""

    step: int
    ref: ArtifactRef

    def told(self) -> Told:
        return Told("checkpoint", "info", f"Saved at step {self.step:,}.", {"step": self.step})


class Point(NamedTuple):
    """One figure at one step. A value that is not finite has none, and says so."""

    split: Split
    name: str
    step: int
    epoch: float | None
    value: float | None
    nonfinite: bool


def points(event: Event) -> Iterator[Point]:
    """The figures in an event."""
    if isinstance(event, StepLogged):
        for name in STEP_METRICS:
            yield _point(Split.TRAIN, name, event.step, event.epoch, getattr(event, name))
    elif isinstance(event, Evaluated):
        for name, value in event.metrics.items():
            yield _point(event.split, name, event.step, None, value)


def told(event: Event) -> Told | None:
    """The row of an event, if it has one. A failure has none: the closing event tells it."""
    match event:
        case Started():
            return Told("training", "info", _beginning(event), _data(event))
        case Resumed():
            level = "info" if event.exact else "warning"
            return Told("resumed", level, _onward(event), _data(event))
        case Noted():
            return Told("noted", event.level, event.message, {"code": event.code})
        case Evaluated():
            return Told("evaluated", "info", _figures(event), _data(event))
        case RivalFitted():
            return Told("rival", "info", _rival(event), _data(event))
        case CandidateTried():
            return Told("candidate", "info", _tried(event), _data(event))
        case Selected():
            text = f"{named(event.method)} is trained on all {event.texts:,} texts."
            return Told("selected", "info", text, _data(event))
        case Finished():
            return Told("trained", "info", "Done; the result is being stored.", {})
        case _:
            return None


def _point(split: Split, name: str, step: int, epoch: float | None, value: float | None) -> Point:
    finite = value is not None and math.isfinite(value)
    return Point(split, name, step, epoch, value if finite else None, nonfinite=not finite)


def _data(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(event.model_dump_json(exclude={"event"}))
    return data


def _beginning(event: Started) -> str:
    return (
        f"Training {event.trainable_parameters:,} of {event.total_parameters:,} parameters "
        f"for {event.total_steps:,} steps on {event.device}."
    )


def _onward(event: Resumed) -> str:
    exactly = f"Going on from step {event.step:,}."
    if event.exact:
        return exactly
    changes = "; ".join(event.differences)
    return f"{exactly} The numbers will differ from those of an unbroken run: {changes}."


def _figures(event: Evaluated) -> str:
    figures = (
        f"{point.name} {'not finite' if point.value is None else format(point.value, '.4f')}"
        for point in points(event)
    )
    return f"{event.split.capitalize()} at step {event.step}: {', '.join(figures)}."


def _tried(event: CandidateTried) -> str:
    found = event.result
    return (
        f"{event.number} of {event.of}: {named(found.method)} answers {found.accuracy:.1%} of "
        f"{found.texts:,} held-out texts rightly ({found.low:.1%} to {found.high:.1%})."
    )


def _rival(event: RivalFitted) -> str:
    part, values = ("validation", event.validation) if event.validation else ("test", event.test)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    return f"The linear rival on {part}: {figures}."
