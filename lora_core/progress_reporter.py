"""Signs of life, told often enough that nobody takes a run for dead, and the ear for a stop."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from lora_core.errors.training import Stopped
from lora_core.events import Observer, Phase, StopSignal, Tick

SECONDS = 1.0  # between two signs within a phase
LISTEN_SECONDS = 0.2  # how soon a stop is heard during `while_beating`

Done = TypeVar("Done")


class Pulse:
    """Tells every change of phase at once, and the step at most once a second."""

    def __init__(self, observer: Observer, stop: StopSignal) -> None:
        self._observer = observer
        self._stop = stop
        self._phase = Phase.LOADING
        self._step = 0
        self._last = 0.0

    def enter(self, phase: Phase, step: int | None = None) -> None:
        """Another phase begins. Raises `Stopped`."""
        self._listen(step)
        self._phase = phase
        self._tell()

    def beat(self, step: int | None = None) -> None:
        """Still there. Raises `Stopped`."""
        self._listen(step)
        if time.monotonic() - self._last >= SECONDS:
            self._tell()

    def _listen(self, step: int | None) -> None:
        self._step = self._step if step is None else step
        if self._stop.requested():
            raise Stopped(step=self._step)

    def _tell(self) -> None:
        self._last = time.monotonic()
        self._observer.on_event(Tick(phase=self._phase, step=self._step))


class Unseen(Pulse):
    """Of a fit within a run: only the run's own phase and step are told."""

    def __init__(self, outer: Pulse) -> None:
        self._outer = outer

    def enter(self, phase: Phase, step: int | None = None) -> None:  # noqa: ARG002
        self._outer.beat()

    def beat(self, step: int | None = None) -> None:  # noqa: ARG002
        self._outer.beat()


def while_beating(pulse: Pulse, work: Callable[[], Done]) -> Done:
    """Compute in a thread, so that others hear that the run is alive. Raises `Stopped`."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="fit")
    try:
        computed = thread.submit(work)
        while not wait([computed], timeout=LISTEN_SECONDS).done:
            pulse.beat()
        return computed.result()
    finally:
        thread.shutdown(wait=False)  # of a run that was stopped nobody needs the rest
