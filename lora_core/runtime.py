"""Device, precision, threads and seed of a run."""

import random
import resource
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from lora_core import cpu, distributed
from lora_core.errors.spec import DeviceMissing, PrecisionUnsupported, TooFewDevices
from lora_core.specs.train import RuntimeSpec


@dataclass(frozen=True)
class Runtime:
    """The settings as they were resolved on this machine."""

    device: str  # "cpu" or "cuda:0"
    precision: str  # "fp32" or "bf16"
    threads: int

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 for matrix products, float32 for what needs it; nothing in fp32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16)

    def peak_memory_mb(self) -> float:
        """Largest memory so far: of the device, or of this process on CPU."""
        if self.device == "cpu":
            return host_peak_mb()
        return torch.cuda.max_memory_allocated(self.device) / 2**20


def host_peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def start(spec: RuntimeSpec) -> Runtime:
    """Resolve the spec and set this process up: threads, seeds, deterministic kernels.

    Raises `DeviceMissing`, `TooFewDevices`, `PrecisionUnsupported`.
    """
    device = _device(spec.device)
    if device != "cpu":
        torch.cuda.set_device(device)
        torch.cuda.empty_cache()  # of an earlier run of this process
        torch.cuda.reset_peak_memory_stats(device)
    fast_bf16 = _fast_bf16(device)
    if spec.precision == "bf16" and not fast_bf16:
        raise PrecisionUnsupported(device=device, precision="bf16")
    precision = spec.precision if spec.precision != "auto" else ("bf16" if fast_bf16 else "fp32")

    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    random.seed(spec.seed)
    np.random.seed(spec.seed)
    torch.manual_seed(spec.seed)
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # Else new memory is filled before it is written: 3 % of a step, to find bugs of kernels.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return Runtime(device, precision, torch.get_num_threads())


def _device(wanted: str) -> str:
    """`auto` and `cuda` are a GPU for each process: the first for one alone."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mine, processes = distributed.of_this_machine()
    names = {"auto": f"cuda:{mine}" if gpus else "cpu", "cuda": f"cuda:{mine}"}
    device = names.get(wanted, wanted)
    there = len(gpus) if wanted in names else 1
    if device != "cpu" and processes > max(1, there):
        raise TooFewDevices(processes=processes, device=wanted, count=there)
    if device not in ("cpu", *gpus):
        raise DeviceMissing(device=wanted, available=", ".join(("cpu", *gpus)))
    return device


def _fast_bf16(device: str) -> bool:
    if device == "cpu":
        return cpu.has_fast_bf16()
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
