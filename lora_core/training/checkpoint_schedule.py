"""When a run saves a checkpoint."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from lora_core.events import CheckpointSaved, Observer

_MAX_OVERHEAD = 0.05  # share of the time that may go into saving: a slow disk makes saves rarer
_FIRST_SECONDS = 30.0  # until the first one of a process: until then a crash costs its whole start


@dataclass(frozen=True)
class CheckpointSettings:
    """The directory of the checkpoints, and the seconds between two; 0 saves after every step.

    The first one is saved after `_FIRST_SECONDS` at the latest.
    """

    directory: Path
    seconds: float


class HasStep(Protocol):
    """The state that a checkpoint saves; `step` counts its progress."""

    @property
    def step(self) -> int: ...


_StateT = TypeVar("_StateT", bound=HasStep, contravariant=True)


class CheckpointSaver(Generic[_StateT]):
    """Saves checkpoints at intervals.

    `write` publishes a checkpoint of a state below a directory, and returns its path. `step` is
    the step at which the run begins: there is nothing to save before the next one.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        write: Callable[[Path, _StateT], Path],
        observer: Observer,
        *,
        step: int,
    ) -> None:
        self._settings, self._write, self._observer = settings, write, observer
        self._saved_step = step
        self._saved_at = time.monotonic()
        self._interval = min(settings.seconds, _FIRST_SECONDS)
        self._save_seconds = 0.0  # that the last save took

    def is_due(self) -> bool:
        """Return whether enough time has passed since the last checkpoint."""
        if not self._interval:
            return True
        elapsed = time.monotonic() - self._saved_at
        return elapsed >= max(self._interval, self._save_seconds / _MAX_OVERHEAD)

    def save(self, state: _StateT) -> None:
        """Publish and report a checkpoint, unless this step is saved. Raises `DiskFull`."""
        if state.step == self._saved_step:
            return
        started = time.monotonic()
        path = self._write(self._settings.directory, state)
        self._saved_step, self._saved_at = state.step, time.monotonic()
        self._save_seconds = self._saved_at - started
        self._interval = self._settings.seconds
        self._observer.on_event(CheckpointSaved(step=state.step, directory=path.name))
