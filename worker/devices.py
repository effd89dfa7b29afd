"""The devices of this machine, and the slots in which they run jobs.

`cuda:1` is the GPU with index 1 in `nvidia-smi`, even where CUDA_VISIBLE_DEVICES hides some GPUs
and so renumbers them for other programs. Only the visible ones are used.
"""

import fcntl
import os
import subprocess
import threading
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from app.queue.enums import DeviceClass
from worker.failures import GpuDriverFailed, GpuInstanceUnsupported, GpuMissing

NVIDIA_SMI_COMMAND = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
NVIDIA_SMI_SECONDS = 30  # without persistence mode the driver is loaded first


class Device(NamedTuple):
    """A CPU or GPU. `uuid` identifies a GPU permanently; the CPU has none."""

    name: str
    uuid: str | None = None

    @property
    def device_class(self) -> DeviceClass:
        return DeviceClass.CPU if self.uuid is None else DeviceClass.GPU


CPU = Device("cpu")


def select_devices(
    names: tuple[str, ...], environ: Mapping[str, str] = os.environ
) -> tuple[Device, ...]:
    """Return the devices named in the settings, without duplicates; `auto`: all GPUs, else the CPU.

    Raises `GpuMissing`, and `GpuDriverFailed` or `GpuInstanceUnsupported` instead of falling back
    to the CPU.
    """
    if names == ("cpu",):
        return (CPU,)
    gpus = {gpu.name: gpu for gpu in _visible_gpus(environ)}
    if names == ("auto",):
        return tuple(gpus.values()) or (CPU,)
    available = {**gpus, CPU.name: CPU}
    for name in names:
        if name not in available:
            raise GpuMissing(name=name, available=", ".join(available))
    return tuple(available[name] for name in dict.fromkeys(names))


def _visible_gpus(environ: Mapping[str, str]) -> list[Device]:
    """Return the GPUs in the order of CUDA_VISIBLE_DEVICES.

    As in CUDA, an entry is an index or a UUID prefix, and the list ends at the first invalid entry.
    Raises `GpuDriverFailed`, `GpuInstanceUnsupported`.
    """
    gpus = _list_gpus()
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return gpus
    visible = []
    for entry in (each.strip() for each in listed.split(",")):
        matching = [gpu for gpu in gpus if entry and _matches(gpu, entry)]
        if gpus and entry.startswith("MIG-"):
            raise GpuInstanceUnsupported(name=entry)
        if len(matching) != 1:
            break
        visible += matching
    return visible


def _matches(gpu: Device, entry: str) -> bool:
    by_uuid = entry.startswith("GPU-") and str(gpu.uuid).startswith(entry)
    return by_uuid or gpu.name == f"cuda:{entry}"


def _list_gpus() -> list[Device]:
    """Return all GPUs of the machine; none without a driver."""
    try:
        completed = subprocess.run(
            NVIDIA_SMI_COMMAND,
            capture_output=True,
            text=True,
            check=False,
            timeout=NVIDIA_SMI_SECONDS,
        )
    except FileNotFoundError:
        return []
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GpuDriverFailed(reason=error) from error
    if completed.returncode != 0:
        output = (completed.stdout + completed.stderr).strip()
        raise GpuDriverFailed(reason=output or f"exit status {completed.returncode}")
    rows = (line.split(",") for line in completed.stdout.splitlines() if "," in line)
    return [Device(f"cuda:{index.strip()}", uuid.strip()) for index, uuid in rows]


def count_slots(devices: Iterable[Device], *, cpu_slots: int) -> int:
    """Return how many jobs the devices run at once: one per GPU, and `cpu_slots` on the CPU."""
    return sum(_slots_of(each, cpu_slots) for each in devices)


def _slots_of(device: Device, cpu_slots: int) -> int:
    return cpu_slots if device.device_class is DeviceClass.CPU else 1


class Slot(NamedTuple):
    """Room for one job on a device.

    `lock_fd` locks a GPU against other workers with the same data directory. A training process
    inherits the descriptor and keeps the lock, even if it outlives the worker.
    """

    device: str
    device_class: DeviceClass
    lock_fd: int | None = None


class SlotPool:
    """The slots of a worker: one per GPU, and `cpu_slots` for the CPU if it is selected."""

    def __init__(self, devices: Sequence[Device], *, cpu_slots: int, lock_dir: Path) -> None:
        self._lock_dir = lock_dir
        self._capacity = {each: _slots_of(each, cpu_slots) for each in devices}
        self._free = dict(self._capacity)
        self._changed = threading.Condition()

    def device_name_per_slot(self) -> list[str]:
        """Return the device name of each slot."""
        return [device.name for device, capacity in self._capacity.items() for _ in range(capacity)]

    def device_classes(self) -> set[DeviceClass]:
        """Return the device classes of the slots."""
        return {device.device_class for device in self._capacity}

    def try_acquire(self, *, exclude: Container[DeviceClass] = ()) -> Slot | None:
        """Return a free slot or `None`, without waiting. `exclude` lists device classes to skip."""
        with self._changed:
            for device, free in self._free.items():
                if (
                    free
                    and device.device_class not in exclude
                    and (slot := self._lock(device)) is not None
                ):
                    self._free[device] -= 1
                    return slot
        return None

    def release(self, slot: Slot) -> None:
        """Return a slot to the pool."""
        with self._changed:
            if slot.lock_fd is not None:
                os.close(slot.lock_fd)  # LOCK_UN would also release the lock of a child process
            device = next(each for each in self._free if each.name == slot.device)
            self._free[device] += 1
            self._changed.notify_all()

    def wait_for_release(self, timeout: float) -> None:
        """Wait until a slot is released, at most `timeout` seconds."""
        with self._changed:
            self._changed.wait(timeout)

    def wait_idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all slots are free, and return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self._capacity, timeout)

    def _lock(self, device: Device) -> Slot | None:
        """Lock a device. `None`: another worker uses it, or a training process without a worker."""
        if device.uuid is None:
            return Slot(device.name, device.device_class)
        self._lock_dir.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(self._lock_dir / f"{device.uuid}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock_fd)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return Slot(device.name, device.device_class, lock_fd)
