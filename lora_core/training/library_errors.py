"""Errors of libraries and of the system that have a cause a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from lora_core import distributed
from lora_core.atomic_files import is_no_room
from lora_core.errors.training import DiskFull, OutOfHostMemory, OutOfMemory
from lora_core.process import is_no_memory
from lora_core.runtime import host_peak_mb
from lora_core.specs.train import TrainSpec

LEAST_TOKENS = 16  # that a spec may ask for


@contextmanager
def known(spec: TrainSpec) -> Iterator[None]:
    """Raises `OutOfMemory`, `OutOfHostMemory` and `DiskFull` for what means that."""
    tokens = spec.optim.micro_batch_tokens
    smaller = {"tokens": tokens, "suggested": max(LEAST_TOKENS, tokens // 2)}
    try:
        yield
    except torch.OutOfMemoryError as error:
        named, (mine, _) = spec.runtime.device, distributed.of_this_machine()
        device = named if ":" in named else f"cuda:{mine}"  # as `auto` and `cuda` are resolved
        peak_mb = torch.cuda.max_memory_allocated(device) / 2**20
        raise OutOfMemory(device=device, peak_mb=peak_mb, **smaller) from error
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        if is_no_room(error):
            raise DiskFull(what="the model") from error
        if is_no_memory(error):
            raise OutOfHostMemory(peak_mb=host_peak_mb(), **smaller) from error
        raise
