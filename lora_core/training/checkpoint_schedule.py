"""When a run saves a checkpoint, and who hears of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from lora_core.events import CheckpointSaved, Observer

MOST_SHARE = 0.05  # of the time may go into saving: a slow disk makes saves rarer
FIRST_SECONDS = 30.0  # until the first one of a process: until then a crash costs its whole start


@dataclass(frozen=True)
class SavePlan:
    """Into which directory, and after how many seconds since the last one; 0: every step.

    The first one comes after `FIRST_SECONDS` already.
    """

    directory: Path
    seconds: float


class HasStep(Protocol):
    """What a checkpoint keeps; `step` says how far it got."""

    @property
    def step(self) -> int: ...


ProgressT = TypeVar("ProgressT", bound=HasStep, contravariant=True)


class Saves(Generic[ProgressT]):
    """Counts from the step that the run begins with: there is nothing to save before the next.

    `write` publishes a progress below a directory and returns where.
    """

    def __init__(
        self,
        plan: SavePlan,
        write: Callable[[Path, ProgressT], Path],
        observer: Observer,
        *,
        step: int,
    ) -> None:
        self._plan, self._write, self._observer = plan, write, observer
        self._step = step
        self._saved_at = time.monotonic()
        self._wanted = min(plan.seconds, FIRST_SECONDS)
        self._took = 0.0  # seconds

    def due(self) -> bool:
        """Whether enough time has passed."""
        wanted = self._wanted
        waited = time.monotonic() - self._saved_at
        return waited >= (max(wanted, self._took / MOST_SHARE) if wanted else 0.0)

    def save(self, progress: ProgressT) -> None:
        """Publish and tell it, if there was a step since the last one. Raises `DiskFull`."""
        if progress.step == self._step:
            return
        began = time.monotonic()
        made = self._write(self._plan.directory, progress)
        self._step, self._saved_at = progress.step, time.monotonic()
        self._took = self._saved_at - began
        self._wanted = self._plan.seconds
        self._observer.on_event(CheckpointSaved(step=progress.step, directory=made.name))
