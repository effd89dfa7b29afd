"""The inference engines, and which of them this machine supports."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from lora_core.cpu import has_fast_bf16
from lora_core.encoders.families import EncoderFamily
from lora_core.errors.artifact import EngineUnavailable
from lora_core.inference.packed_encoder import CompiledEncoder, PackedEncoder

FP32, BF16 = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class EngineSpec:
    """How to build the encoder of an engine, and when to use it."""

    build: Callable[[PreTrainedModel, EncoderFamily], PackedEncoder]
    is_available: Callable[[], bool]
    is_auto_candidate: Callable[[], bool]  # whether `auto` benchmarks it


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which `torch.compile` needs for the CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def has_gpu() -> bool:
    """Return whether torch finds a GPU."""
    return torch.cuda.is_available()


def _always() -> bool:
    return True


def _never() -> bool:
    return False


ENGINES: Mapping[str, EngineSpec] = {
    "torch-fp32": EngineSpec(partial(PackedEncoder, dtype=FP32), _always, _always),
    "torch-bf16": EngineSpec(partial(PackedEncoder, dtype=BF16), _always, has_fast_bf16),
    # Only on request by name; `auto` never tries them. They save a tenth of the time at most, on
    # the operations between the products, and compile for seconds: useful for a server that runs
    # for long and whose encoder is shared by no other version.
    "compiled-fp32": EngineSpec(partial(CompiledEncoder, dtype=FP32), has_compiler, _never),
    "compiled-bf16": EngineSpec(partial(CompiledEncoder, dtype=BF16), has_compiler, _never),
    "cuda-bf16": EngineSpec(partial(PackedEncoder, dtype=BF16, device="cuda"), has_gpu, has_gpu),
}
_REQUIREMENTS = {
    "compiled": "a C++ compiler; install g++",
    "cuda": "a GPU and the CUDA build of torch",
}


def use_single_thread() -> None:
    """Limit whatever the calling thread computes from now on to one core.

    Each thread that uses several cores keeps an OpenMP thread pool for it. If these pools have more
    threads than there are cores, libgomp lets all of them sleep at every barrier, and a single text
    takes half as long again.
    """
    torch.set_num_threads(1)


def auto_candidates() -> list[str]:
    """Return the names of the engines that `auto` chooses from on this machine."""
    return [
        name
        for name, engine in ENGINES.items()
        if engine.is_available() and engine.is_auto_candidate()
    ]


def get_engine(name: str) -> EngineSpec:
    """Return the engine of this name. Raises `EngineUnavailable` on a machine without it."""
    engine = ENGINES[name]
    if not engine.is_available():
        raise EngineUnavailable(engine=name, needs=_REQUIREMENTS[name.partition("-")[0]])
    return engine
