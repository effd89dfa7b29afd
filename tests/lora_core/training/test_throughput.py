"""Which time counts as training."""

from contextlib import suppress
from types import SimpleNamespace

import pytest

from lora_core.training import throughput
from lora_core.training.throughput import ThroughputAndLossMeter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The current time."""
    now = [0.0]
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_pause_leaves_out_its_own_time_only(clock: list[float]) -> None:
    measured = ThroughputAndLossMeter(log_every=1, seconds=0.0, _clock=0.0)
    clock[0] = 2.0
    measured.add(loss=0.0, norm=0.0, texts=1, tokens=1)
    clock[0] = 3.0  # from the step to the pause
    with suppress(OSError), measured.paused():
        clock[0] = 10.0
        raise OSError
    clock[0] = 14.0
    measured.add(loss=0.0, norm=0.0, texts=1, tokens=1)
    assert measured.seconds == 2 + 1 + 4
