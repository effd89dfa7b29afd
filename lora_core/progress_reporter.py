"""Report progress often enough that a run is not taken for dead, and check for a stop request."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from lora_core.errors.training import StopRequested
from lora_core.events import Observer, Phase, ProgressReported, StopSignal

TICK_SECONDS = 1.0  # minimum time between two `ProgressReported` within a phase
STOP_POLL_SECONDS = 0.2  # between two checks for a stop request in `run_in_thread_with_progress`

_ResultT = TypeVar("_ResultT")


class ProgressReporter:
    """Sends `ProgressReported` at every change of phase, and otherwise at most once a second."""

    def __init__(self, observer: Observer, stop: StopSignal) -> None:
        self._observer = observer
        self._stop = stop
        self._phase = Phase.LOADING
        self._step = 0
        self._last_tick = 0.0

    def enter_phase(self, phase: Phase, step: int | None = None) -> None:
        """Report the beginning of a phase. Raises `StopRequested`."""
        self._check_stop(step)
        self._phase = phase
        self._send_tick()

    def tick(self, step: int | None = None) -> None:
        """Report that the run is alive. Raises `StopRequested`."""
        self._check_stop(step)
        if time.monotonic() - self._last_tick >= TICK_SECONDS:
            self._send_tick()

    def _check_stop(self, step: int | None) -> None:
        self._step = self._step if step is None else step
        if self._stop.requested():
            raise StopRequested(step=self._step)

    def _send_tick(self) -> None:
        self._last_tick = time.monotonic()
        self._observer.on_event(ProgressReported(phase=self._phase, step=self._step))


class HeartbeatOnlyProgress(ProgressReporter):
    """The progress of a fit within a run: reports the phase and step of the outer run only."""

    def __init__(self, outer: ProgressReporter) -> None:
        self._outer = outer

    def enter_phase(self, phase: Phase, step: int | None = None) -> None:  # noqa: ARG002
        self._outer.tick()

    def tick(self, step: int | None = None) -> None:  # noqa: ARG002
        self._outer.tick()


def run_in_thread_with_progress(
    progress: ProgressReporter, function: Callable[[], _ResultT]
) -> _ResultT:
    """Run a function in a thread while reporting progress; return its result.

    Raises `StopRequested` without waiting for the thread.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="fit")
    try:
        future = executor.submit(function)
        while not wait([future], timeout=STOP_POLL_SECONDS).done:
            progress.tick()
        return future.result()
    finally:
        executor.shutdown(wait=False)  # after a stop, nobody needs the result
