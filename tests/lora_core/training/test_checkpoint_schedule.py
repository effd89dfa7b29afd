"""When a checkpoint is saved."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_core.training.checkpoint_schedule import CheckpointSchedule, CheckpointSettings
from tests.listener import Listener

Move = Callable[[float], None]


class At:
    """A state with only a step."""

    def __init__(self, step: int) -> None:
        self.step = step


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Move a clock that otherwise stands still."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


@pytest.fixture
def open_saves(move: Move) -> Callable[..., CheckpointSchedule[At]]:
    """Make schedules whose saves take some seconds and write nothing."""

    def make(every: float, takes: float, heard: Listener, step: int = 0) -> CheckpointSchedule[At]:
        def write(parent: Path, progress: At) -> Path:
            move(takes)
            return parent / f"step-{progress.step}"

        return CheckpointSchedule(CheckpointSettings(Path("here"), every), write, heard, step=step)

    return make


def save(saves: CheckpointSchedule[At], step: int) -> None:
    saves.save(At(step))


def test_it_is_due_after_the_time_and_told_when_done(
    move: Move, open_saves: Callable[..., CheckpointSchedule[At]]
) -> None:
    heard = Listener()
    saves = open_saves(300, 1, heard)
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
    assert [(event.step, event.directory) for event in heard.all("checkpoint")] == [
        (3, "step-3"),
        (7, "step-7"),
    ]


def test_a_slow_disk_makes_saves_rarer(
    move: Move, open_saves: Callable[..., CheckpointSchedule[At]]
) -> None:
    saves = open_saves(300, 60, Listener())
    save(saves, 1)
    move(300)
    assert not saves.is_due()
    move(900)
    assert saves.is_due()  # 60 s in 1,200: five of a hundred


def test_zero_is_every_step_however_long_it_takes(
    move: Move, open_saves: Callable[..., CheckpointSchedule[At]]
) -> None:
    saves = open_saves(0, 60, Listener())
    save(saves, 1)
    assert saves.is_due()


def test_without_a_step_since_the_last_one_there_is_nothing_to_save(
    open_saves: Callable[..., CheckpointSchedule[At]],
) -> None:
    heard = Listener()
    saves = open_saves(0, 0, heard, step=4)
    for step in (4, 5, 5):
        save(saves, step)
    assert [event.step for event in heard.all("checkpoint")] == [5]
