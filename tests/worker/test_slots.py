"""Trainings at the same time: as many as there are devices, and never two on one GPU."""

import subprocess
import threading
from pathlib import Path

import pytest

from app.queue.states import Lane
from worker.devices import CPU, Device, Slot, Slots

GPU = Device("cuda:0", "GPU-1")
OTHER = Device("cuda:1", "GPU-2")


def slots(tmp_path: Path, *devices: Device, cpu_count: int = 1) -> Slots:
    return Slots(devices or (CPU,), cpu_count=cpu_count, locks=tmp_path / "devices")


def take(slots: Slots) -> Slot:
    taken = slots.take()
    assert taken is not None
    return taken


def test_no_more_slots_are_taken_than_there_are(tmp_path: Path) -> None:
    two = slots(tmp_path, cpu_count=2)
    taken = [take(two), take(two)]
    assert two.take() is None
    two.give(taken[0])
    assert take(two) == Slot("cpu", Lane.CPU)


def test_each_gpu_is_one_slot_whatever_the_cpu_has(tmp_path: Path) -> None:
    mixed = slots(tmp_path, GPU, OTHER, CPU, cpu_count=2)
    taken = [take(mixed) for _ in range(4)]
    assert [(each.device, each.lane) for each in taken] == [
        ("cuda:0", Lane.GPU),
        ("cuda:1", Lane.GPU),
        ("cpu", Lane.CPU),
        ("cpu", Lane.CPU),
    ]
    assert mixed.take() is None
    for each in taken:
        mixed.give(each)


def test_a_lane_can_be_left_out(tmp_path: Path) -> None:
    mixed = slots(tmp_path, GPU, CPU)
    found = mixed.take(but={Lane.GPU})
    assert found is not None
    assert found.device == "cpu"
    assert mixed.take(but={Lane.GPU}) is None


def test_two_workers_never_share_a_gpu(tmp_path: Path) -> None:
    one, another = slots(tmp_path, GPU), slots(tmp_path, GPU, OTHER)
    held = take(one)
    beside = take(another)
    assert beside.device == "cuda:1"
    assert another.take() is None
    one.give(held)
    assert take(another).device == "cuda:0"
    assert one.take() is None


def test_a_gpu_stays_locked_while_a_training_lives_that_inherited_the_lock(tmp_path: Path) -> None:
    one, another = slots(tmp_path, GPU), slots(tmp_path, GPU)
    held = take(one)
    assert held.lock_fd is not None
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=(held.lock_fd,)) as orphan:
        one.give(held)
        assert another.take() is None
        assert one.take() is None
        orphan.kill()
        orphan.wait()
    another.give(take(another))


def test_the_lock_is_passed_on_to_nobody_by_accident(tmp_path: Path) -> None:
    one, another = slots(tmp_path, GPU), slots(tmp_path, GPU)
    held = take(one)
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as stranger:
        one.give(held)
        another.give(take(another))
        stranger.kill()


def test_idle_means_that_all_came_back(tmp_path: Path) -> None:
    one = slots(tmp_path)
    assert one.wait_idle(0)
    held = take(one)
    assert not one.wait_idle(0.01)
    giver = threading.Timer(0.05, one.give, [held])
    giver.start()
    assert one.wait_idle(10)
    giver.join()


@pytest.mark.parametrize("devices", [(CPU,), (GPU,)])
def test_a_slot_that_was_not_taken_does_not_count(
    tmp_path: Path, devices: tuple[Device, ...]
) -> None:
    one = slots(tmp_path, *devices)
    held = take(one)
    assert one.take() is None
    one.give(held)
    assert one.wait_idle(0)
