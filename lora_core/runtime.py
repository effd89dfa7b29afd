"""Device, precision, threads and seed of a run, and what it raises when memory or disk is full."""

import random
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError

from lora_core import cpu, distributed
from lora_core.atomic_files import is_disk_full
from lora_core.errors.spec import DeviceUnavailable, PrecisionUnsupported, TooFewDevices
from lora_core.errors.training import DeviceOutOfMemory, DiskFull, HostOutOfMemory
from lora_core.process_settings import is_oom_error
from lora_core.specs.train import RuntimeSpec, TrainSpec


@dataclass(frozen=True)
class Runtime:
    """The settings as resolved on this machine."""

    device: str  # "cpu" or "cuda:0"
    precision: str  # "fp32" or "bf16"
    threads: int

    def autocast(self) -> AbstractContextManager[object]:
        """Return torch's autocast to bf16, or a null context for fp32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16)

    def peak_memory_mb(self) -> float:
        """Return the peak memory so far in MiB: of the GPU, or of this process on a CPU."""
        if self.device == "cpu":
            return peak_process_memory_mb()
        return torch.cuda.max_memory_allocated(self.device) / 2**20


def peak_process_memory_mb() -> float:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def setup_runtime(spec: RuntimeSpec) -> Runtime:
    """Resolve the spec and set up this process: threads, seeds, deterministic kernels.

    Raises `DeviceUnavailable`, `TooFewDevices`, `PrecisionUnsupported`.
    """
    device = resolve_device(spec.device)
    if device != "cpu":
        torch.cuda.set_device(device)
        torch.cuda.empty_cache()  # memory of an earlier run in this process
        torch.cuda.reset_peak_memory_stats(device)
    fast_bf16 = _has_fast_bf16(device)
    if spec.precision == "bf16" and not fast_bf16:
        raise PrecisionUnsupported(device=device, precision="bf16")
    precision = spec.precision if spec.precision != "auto" else ("bf16" if fast_bf16 else "fp32")

    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    random.seed(spec.seed)
    np.random.seed(spec.seed)
    torch.manual_seed(spec.seed)
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # Filling new memory takes 3% of a step and only serves to find bugs in kernels.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return Runtime(device, precision, torch.get_num_threads())


def resolve_device(wanted: str) -> str:
    """Resolve `auto` and `cuda` to one GPU per process, the first one for a single process."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    local_rank, processes = distributed.local_rank_and_size()
    names = {"auto": f"cuda:{local_rank}" if gpus else "cpu", "cuda": f"cuda:{local_rank}"}
    device = names.get(wanted, wanted)
    available = len(gpus) if wanted in names else 1
    if device != "cpu" and processes > max(1, available):
        raise TooFewDevices(processes=processes, device=wanted, count=available)
    if device not in ("cpu", *gpus):
        raise DeviceUnavailable(device=wanted, available=", ".join(("cpu", *gpus)))
    return device


def _has_fast_bf16(device: str) -> bool:
    if device == "cpu":
        return cpu.has_fast_bf16()
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


# -- Running out of memory or disk ----------------------------------------------------------------

MIN_MICRO_BATCH_TOKENS = 16  # the lowest valid `optim.micro_batch_tokens`


@contextmanager
def convert_resource_errors(spec: TrainSpec) -> Iterator[None]:
    """Raise `DeviceOutOfMemory`, `HostOutOfMemory` or `DiskFull` for errors with that cause."""
    tokens = spec.optim.micro_batch_tokens
    advice = {"tokens": tokens, "suggested": max(MIN_MICRO_BATCH_TOKENS, tokens // 2)}
    try:
        yield
    except torch.OutOfMemoryError as error:
        named, (local_rank, _) = spec.runtime.device, distributed.local_rank_and_size()
        device = named if ":" in named else f"cuda:{local_rank}"  # `auto` and `cuda`
        peak_mb = torch.cuda.max_memory_allocated(device) / 2**20
        raise DeviceOutOfMemory(device=device, peak_mb=peak_mb, **advice) from error
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFull(what="the model") from error
        if is_oom_error(error):
            raise HostOutOfMemory(peak_mb=peak_process_memory_mb(), **advice) from error
        raise
