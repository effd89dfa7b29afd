"""When a checkpoint is saved."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_core.training.checkpoint_schedule import CheckpointSaver, CheckpointSettings
from tests.recording_observer import RecordingObserver

Move = Callable[[float], None]


class At:
    """A state with only a step."""

    def __init__(self, step: int) -> None:
        self.step = step


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Advance a frozen clock."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


@pytest.fixture
def open_saves(move: Move) -> Callable[..., CheckpointSaver[At]]:
    """Make schedules whose saves take some seconds and write nothing."""

    def make(
        every: float, takes: float, observer: RecordingObserver, step: int = 0
    ) -> CheckpointSaver[At]:
        def write(parent: Path, progress: At) -> Path:
            move(takes)
            return parent / f"step-{progress.step}"

        return CheckpointSaver(CheckpointSettings(Path("here"), every), write, observer, step=step)

    return make


def save(saves: CheckpointSaver[At], step: int) -> None:
    saves.save(At(step))


def test_save_is_due_after_the_interval_and_reported(
    move: Move, open_saves: Callable[..., CheckpointSaver[At]]
) -> None:
    observer = RecordingObserver()
    saves = open_saves(300, 1, observer)
    move(29)
    assert not saves.is_due()
    move(1)
    assert saves.is_due()  # the first one comes early
    save(saves, 3)
    move(299)
    assert not saves.is_due()
    move(1)
    assert saves.is_due()
    save(saves, 7)
    assert not saves.is_due()
    assert [(event.step, event.directory) for event in observer.all("checkpoint")] == [
        (3, "step-3"),
        (7, "step-7"),
    ]


def test_a_short_interval_holds_from_the_start(
    move: Move, open_saves: Callable[..., CheckpointSaver[At]]
) -> None:
    saves = open_saves(10, 0, RecordingObserver())
    move(9)
    assert not saves.is_due()
    move(1)
    assert saves.is_due()


def test_slow_disk_makes_saves_less_frequent(
    move: Move, open_saves: Callable[..., CheckpointSaver[At]]
) -> None:
    saves = open_saves(300, 60, RecordingObserver())
    save(saves, 1)
    move(300)
    assert not saves.is_due()
    move(900)
    assert saves.is_due()  # 60 s in 1,200 s: five percent


def test_zero_interval_saves_at_every_step(
    move: Move, open_saves: Callable[..., CheckpointSaver[At]]
) -> None:
    saves = open_saves(0, 60, RecordingObserver())
    save(saves, 1)
    assert saves.is_due()


def test_nothing_is_saved_without_a_new_step(
    open_saves: Callable[..., CheckpointSaver[At]],
) -> None:
    observer = RecordingObserver()
    saves = open_saves(0, 0, observer, step=4)
    for step in (4, 5, 5):
        save(saves, step)
    assert [event.step for event in observer.all("checkpoint")] == [5]
