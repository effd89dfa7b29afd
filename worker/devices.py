"""What this machine can train on.

`cuda:1` is the GPU that `nvidia-smi` numbers 1, whatever number a program would give it that sees
only some of them. CUDA_VISIBLE_DEVICES limits which ones are ours.
"""

import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from app.jobs.states import Lane
from worker.errors import GpuDriverFails, GpuMissing

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
