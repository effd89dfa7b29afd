"""What this machine can train on.

`cuda:1` is the GPU that `nvidia-smi` numbers 1, whatever number a program would give it that sees
only some of them. CUDA_VISIBLE_DEVICES limits which ones are ours.
"""

import fcntl
import os
import subprocess
import threading
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from app.queue.states import Lane
from worker.failures import GpuDriverFails, GpuMissing

QUERY = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
QUERY_SECONDS = 30  # a driver that is not kept loaded takes a while


class Device(NamedTuple):
    """`uuid` names a GPU for good; the CPU has none."""

    name: str
    uuid: str | None = None

    @property
    def lane(self) -> Lane:
        return Lane.CPU if self.uuid is None else Lane.GPU


CPU = Device("cpu")


def chosen(names: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> tuple[Device, ...]:
    """The devices that the settings name, each once; `auto` is all GPUs, else the CPU.

    Raises `GpuMissing`, and `GpuDriverFails` rather than taking the CPU for GPUs that are there.
    """
    if names == ("cpu",):
        return (CPU,)
    found = {gpu.name: gpu for gpu in _visible(environ)}
    if names == ("auto",):
        return tuple(found.values()) or (CPU,)
    there = {**found, CPU.name: CPU}
    for name in names:
        if name not in there:
            raise GpuMissing(name=name, there=", ".join(there))
    return tuple(there[name] for name in dict.fromkeys(names))


def _visible(environ: Mapping[str, str]) -> list[Device]:
    """In the order of CUDA_VISIBLE_DEVICES, which names GPUs by number or by the start of their
    UUID, and ends at the first one that is not there.
    """
    gpus = _gpus()
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return gpus
    visible = []
    for entry in (each.strip() for each in listed.split(",")):
        same = [gpu for gpu in gpus if entry and _is(gpu, entry)]
        if len(same) != 1:
            break
        visible += same
    return visible


def _is(gpu: Device, entry: str) -> bool:
    by_uuid = entry.startswith("GPU-") and str(gpu.uuid).startswith(entry)
    return by_uuid or gpu.name == f"cuda:{entry}"


def _gpus() -> list[Device]:
    """Every GPU of the machine; none where there is no driver."""
    try:
        answer = subprocess.run(
            QUERY, capture_output=True, text=True, check=False, timeout=QUERY_SECONDS
        )
    except FileNotFoundError:
        return []
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GpuDriverFails(reason=error) from error
    if answer.returncode != 0:
        told = (answer.stdout + answer.stderr).strip()
        raise GpuDriverFails(reason=told or f"exit status {answer.returncode}")
    rows = (line.split(",") for line in answer.stdout.splitlines() if "," in line)
    return [Device(f"cuda:{index.strip()}", uuid.strip()) for index, uuid in rows]


# MERGED worker.devices
# Devices that are free to train a job, and those that are taken.


class Slot(NamedTuple):
    """A device that trains one job at a time.

    `lock_fd` locks a GPU against the other workers with this data folder. A training that inherits
    it keeps the lock, even when it outlives the worker.
    """

    device: str
    lane: Lane
    lock_fd: int | None = None


class Slots:
    """One for each GPU, and `cpu_count` for the CPU if that is one of the devices."""

    def __init__(self, devices: Sequence[Device], *, cpu_count: int, locks: Path) -> None:
        self._locks = locks
        self._room = {each: cpu_count if each.lane is Lane.CPU else 1 for each in devices}
        self._free = dict(self._room)
        self._changed = threading.Condition()

    def names(self) -> list[str]:
        """The device of each slot."""
        return [device.name for device, room in self._room.items() for _ in range(room)]

    def take(self, *, but: Container[Lane] = ()) -> Slot | None:
        """A free slot of any lane but those; `None`: there is none. Does not wait."""
        with self._changed:
            for device, free in self._free.items():
                if free and device.lane not in but and (slot := self._lock(device)) is not None:
                    self._free[device] -= 1
                    return slot
        return None

    def give(self, slot: Slot) -> None:
        """Free a slot that was taken."""
        with self._changed:
            if slot.lock_fd is not None:
                os.close(slot.lock_fd)  # unlocking would also take the lock from who inherited it
            device = next(each for each in self._free if each.name == slot.device)
            self._free[device] += 1
            self._changed.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no slot is taken, at most so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self._room, timeout)

    def _lock(self, device: Device) -> Slot | None:
        """`None`: another worker trains on it, or a training whose worker has died."""
        if device.uuid is None:
            return Slot(device.name, device.lane)
        self._locks.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(self._locks / f"{device.uuid}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            return None
        return Slot(device.name, device.lane, lock_fd)
