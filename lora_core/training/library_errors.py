"""Translate errors of libraries and of the operating system that a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from lora_core import distributed
from lora_core.atomic_files import is_disk_full
from lora_core.errors.training import DeviceOutOfMemory, DiskFull, HostOutOfMemory
from lora_core.process import is_out_of_memory
from lora_core.runtime import peak_process_memory_mb
from lora_core.specs.train import TrainSpec

MIN_TOKENS = 16  # the lowest valid `optim.micro_batch_tokens`


@contextmanager
def translate_errors(spec: TrainSpec) -> Iterator[None]:
    """Raise `DeviceOutOfMemory`, `HostOutOfMemory` or `DiskFull` for errors with that cause."""
    tokens = spec.optim.micro_batch_tokens
    advice = {"tokens": tokens, "suggested": max(MIN_TOKENS, tokens // 2)}
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
        if is_out_of_memory(error):
            raise HostOutOfMemory(peak_mb=peak_process_memory_mb(), **advice) from error
        raise
