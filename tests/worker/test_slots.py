"""Slots: as many concurrent jobs as devices, and never two on one GPU."""

import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest

from app.queue.enums import DeviceClass
from worker.devices import CPU, Device, Slot, SlotPool

GPU = Device("cuda:0", "GPU-1")
OTHER = Device("cuda:1", "GPU-2")


def slots(tmp_path: Path, *devices: Device, cpu_slots: int = 1) -> SlotPool:
    return SlotPool(devices or (CPU,), cpu_slots=cpu_slots, lock_dir=tmp_path / "devices")


def take(slots: SlotPool) -> Slot:
    taken = slots.try_acquire()
    assert taken is not None
    return taken


def test_slots_are_limited(tmp_path: Path) -> None:
    two = slots(tmp_path, cpu_slots=2)
    taken = [take(two), take(two)]
    assert two.try_acquire() is None
    two.release(taken[0])
    assert take(two) == Slot("cpu", DeviceClass.CPU)


def test_each_gpu_has_one_slot(tmp_path: Path) -> None:
    mixed = slots(tmp_path, GPU, OTHER, CPU, cpu_slots=2)
    taken = [take(mixed) for _ in range(4)]
    assert [(each.device, each.device_class) for each in taken] == [
        ("cuda:0", DeviceClass.GPU),
        ("cuda:1", DeviceClass.GPU),
        ("cpu", DeviceClass.CPU),
        ("cpu", DeviceClass.CPU),
    ]
    assert mixed.try_acquire() is None
    for each in taken:
        mixed.release(each)


def test_device_class_can_be_excluded(tmp_path: Path) -> None:
    mixed = slots(tmp_path, GPU, CPU)
    found = mixed.try_acquire(exclude={DeviceClass.GPU})
    assert found is not None
    assert found.device == "cpu"
    assert mixed.try_acquire(exclude={DeviceClass.GPU}) is None


def test_failed_lock_leaves_no_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("worker.devices.fcntl.flock", fail)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="no locks available"):
        slots(tmp_path, GPU).try_acquire()
    assert os.listdir("/proc/self/fd") == before


def test_two_workers_never_share_a_gpu(tmp_path: Path) -> None:
    one, another = slots(tmp_path, GPU), slots(tmp_path, GPU, OTHER)
    slot = take(one)
    beside = take(another)
    assert beside.device == "cuda:1"
    assert another.try_acquire() is None
    one.release(slot)
    assert take(another).device == "cuda:0"
    assert one.try_acquire() is None


def test_gpu_stays_locked_by_the_inheriting_child(tmp_path: Path) -> None:
    one, another = slots(tmp_path, GPU), slots(tmp_path, GPU)
    slot = take(one)
    assert slot.lock_fd is not None
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=(slot.lock_fd,)) as orphan:
        one.release(slot)
        assert another.try_acquire() is None
        assert one.try_acquire() is None
        orphan.kill()
        orphan.wait()
    another.release(take(another))


def test_lock_is_not_inherited_by_other_processes(tmp_path: Path) -> None:
    one, another = slots(tmp_path, GPU), slots(tmp_path, GPU)
    slot = take(one)
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as stranger:
        one.release(slot)
        another.release(take(another))
        stranger.kill()


def test_idle_means_all_slots_are_released(tmp_path: Path) -> None:
    one = slots(tmp_path)
    assert one.wait_idle(0)
    slot = take(one)
    assert not one.wait_idle(0.01)
    releaser = threading.Timer(0.05, one.release, [slot])
    releaser.start()
    assert one.wait_idle(10)
    releaser.join()


@pytest.mark.parametrize("devices", [(CPU,), (GPU,)])
def test_failed_lock_does_not_use_up_a_slot(tmp_path: Path, devices: tuple[Device, ...]) -> None:
    one = slots(tmp_path, *devices)
    slot = take(one)
    assert one.try_acquire() is None
    one.release(slot)
    assert one.wait_idle(0)
