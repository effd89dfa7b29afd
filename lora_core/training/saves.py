"""When a run saves a checkpoint, and who hears of it."""

import time
from dataclasses import dataclass
from pathlib import Path

from lora_core.events import CheckpointSaved, Observer
from lora_core.training import checkpoint
from lora_core.training.origin import Origin
from lora_core.training.progress import Progress

DEFAULT_SECONDS = 300.0
MOST_SHARE = 0.05  # of the time may go into saving: a slow disk makes saves rarer


@dataclass(frozen=True)
class SavePlan:
    """Into which directory, and after how many seconds since the last one; 0: every step."""

    directory: Path
    seconds: float = DEFAULT_SECONDS


class Saves:
    """Counts from the step that the run begins with: there is nothing to save before the next."""

    def __init__(self, plan: SavePlan, origin: Origin, observer: Observer, *, step: int) -> None:
        self._plan, self._origin, self._observer = plan, origin, observer
        self._step = step
        self._saved_at = time.monotonic()
        self._took = 0.0  # seconds

    def due(self) -> bool:
        """Whether enough time has passed."""
        wanted = self._plan.seconds
        waited = time.monotonic() - self._saved_at
        return waited >= (max(wanted, self._took / MOST_SHARE) if wanted else 0.0)

    def save(self, progress: Progress) -> None:
        """Publish and tell it, if there was a step since the last one. Raises `DiskFull`."""
        if progress.step == self._step:
            return
        began = time.monotonic()
        made = checkpoint.write(self._plan.directory, self._origin, progress)
        self._step, self._saved_at = progress.step, time.monotonic()
        self._took = self._saved_at - began
        self._observer.on_event(CheckpointSaved(step=progress.step, directory=made.name))
