"""Observers of a run for tests."""

import threading
from typing import Any

from lora_core.events import Event


class RecordingObserver:
    """An observer that records events, and a stop signal that is set at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[Event] = []
        self.stop_at = stop_at

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def requested(self) -> bool:
        steps = [e.step for e in self.events if e.event == "step"]
        return self.stop_at is not None and bool(steps) and steps[-1] >= self.stop_at

    def all(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.event == kind]


class StopDuringFit(RecordingObserver):
    """Requests a stop once `fit` has started, which does not end before `left` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.left = threading.Event()
        self._fitting = threading.Event()

    def requested(self) -> bool:
        return self._fitting.is_set()

    def fit(self, *_: Any, **__: Any) -> None:
        """Replaces the real `fit`."""
        self._fitting.set()
        assert self.left.wait(30)
