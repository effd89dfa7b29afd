"""Devices that are free to train a job, and those that are taken."""

import fcntl
import os
import threading
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from app.jobs.states import Lane
from worker.devices import Device


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
