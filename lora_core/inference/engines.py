"""Which engines there are, and which of them this machine has."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from lora_core.cpu import has_fast_bf16
from lora_core.encoders.base import EncoderFamily
from lora_core.errors.artifact import EngineMissing
from lora_core.inference.compiled import CompiledNetwork
from lora_core.inference.network import Network

EXACT, FAST = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Kind:
    """A way to compute."""

    build: Callable[[PreTrainedModel, EncoderFamily], Network]
    is_here: Callable[[], bool]
    pays: Callable[[], bool]  # whether it is measured when the fastest is looked for


def has_compiler() -> bool:
    """Whether torch can compile for the processor: it needs a compiler of C++."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def has_gpu() -> bool:
    """Whether torch finds a GPU."""
    return torch.cuda.is_available()


def _always() -> bool:
    return True


def _never() -> bool:
    return False


ENGINES: Mapping[str, Kind] = {
    "torch-fp32": Kind(partial(Network, dtype=EXACT), _always, _always),
    "torch-bf16": Kind(partial(Network, dtype=FAST), _always, has_fast_bf16),
    # Only for who asks for them by name, `auto` never tries them. They save a tenth of the time at
    # most, on what lies between the products, and compile for seconds: something for a server that
    # lives long and where no work is shared.
    "compiled-fp32": Kind(partial(CompiledNetwork, dtype=EXACT), has_compiler, _never),
    "compiled-bf16": Kind(partial(CompiledNetwork, dtype=FAST), has_compiler, _never),
    "cuda-bf16": Kind(partial(Network, dtype=FAST, device="cuda"), has_gpu, has_gpu),
}
_NEEDS = {
    "compiled": "a compiler of C++; install g++",
    "cuda": "a GPU and the CUDA build of torch",
}


def use_one_core() -> None:
    """Whatever the calling thread computes from now on.

    Each thread that uses several cores keeps a team for it, and with more threads in teams than
    there are cores, all sleep at every wait (libgomp): a lone text takes half as long again.
    """
    torch.set_num_threads(1)


def candidates() -> list[str]:
    """Those of which one is the fastest here."""
    return [name for name, kind in ENGINES.items() if kind.is_here() and kind.pays()]


def kind(name: str) -> Kind:
    """Raises `EngineMissing` if this machine does not have it."""
    found = ENGINES[name]
    if not found.is_here():
        raise EngineMissing(engine=name, needs=_NEEDS[name.partition("-")[0]])
    return found
