"""The compiled library: which one this machine can use, and the C structures of its functions."""

import ctypes
import logging
import threading
from collections.abc import Callable
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_core import cpu
from lora_core.fast.native.build import VARIANTS, library_file

MAX_TOKENS = 2**24  # of a batch or a window
_INVALID, _NO_MEMORY = 1, 2  # what functions return, besides 0
_ALIGNMENT = 64  # bytes, of a workspace
_MAX_KEPT = 2**25  # bytes; a usual batch needs a third of it

log = logging.getLogger(__name__)


def window_or_none(window: int | None) -> int:
    """Return a window as the structures have it: none is -1, and none is longer than a batch."""
    return -1 if window is None else min(window, MAX_TOKENS)


class LinearStruct(Structure):
    """A packed linear layer."""

    _fields_ = (
        ("weight", c_void_p), ("bias", c_void_p), ("inputs", c_int32), ("outputs", c_int32),
    )  # fmt: skip


class LowRankStruct(Structure):
    """The packed LoRA weights of one layer; without `a` there are none."""

    _fields_ = (("a", c_void_p), ("b", c_void_p), ("rank", c_int32))


class NormStruct(Structure):
    """A layer norm; without `weight` there is none."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p))


class BlockStruct(Structure):
    """One block."""

    _fields_ = (
        ("qkv", LinearStruct), ("projection", LinearStruct),
        ("up", LinearStruct), ("down", LinearStruct),
        ("first", NormStruct), ("second", NormStruct),
        ("cosines", c_void_p), ("sines", c_void_p), ("window", c_int32),
    )  # fmt: skip


class EncoderStruct(Structure):
    """All blocks, and their sizes."""

    _fields_ = (
        ("blocks", POINTER(BlockStruct)),
        ("block_count", c_int32), ("width", c_int32), ("heads", c_int32), ("head_size", c_int32),
        ("feed_forward", c_int32), ("norm_first", c_int32), ("gated", c_int32),
        ("first_only", c_int32), ("positions", c_int32), ("norm_epsilon", c_float),
    )  # fmt: skip


class BatchStruct(Structure):
    """Packed texts, and where the rows of each version are."""

    _fields_ = (
        ("texts", c_int32), ("rows", c_int32), ("versions", c_int32),
        ("starts", c_void_p), ("lengths", c_void_p),
        ("version_rows", c_void_p), ("version_texts", c_void_p),
        ("low_rank", POINTER(LowRankStruct)), ("x", c_void_p), ("first", c_void_p),
    )  # fmt: skip


class StridedTensorStruct(Structure):
    """Where the numbers of a token and head are; strides in elements."""

    _fields_ = (("data", c_void_p), ("text", c_int64), ("head", c_int64), ("token", c_int64))


class AttentionStruct(Structure):
    """Queries, keys and values of padded texts, and their gradients."""

    _fields_ = (
        ("texts", c_int32), ("heads", c_int32), ("size", c_int32), ("tokens", c_int32),
        ("window", c_int32), ("scale", c_float), ("lengths", c_void_p), ("log_sums", c_void_p),
        ("query", StridedTensorStruct), ("key", StridedTensorStruct),
        ("value", StridedTensorStruct), ("out", StridedTensorStruct),
        ("d_out", StridedTensorStruct), ("d_query", StridedTensorStruct),
        ("d_key", StridedTensorStruct), ("d_value", StridedTensorStruct),
    )  # fmt: skip


class InvalidArguments(ValueError):
    """A native function refused its arguments, and computed nothing."""


class _Workspace:
    """Memory for what a call computes on the way, kept by each thread."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def get(self, size: int) -> Tensor:
        """Return `size` bytes, aligned. Much memory is not kept."""
        memory: Tensor | None = getattr(self._of_thread, "memory", None)
        if memory is None or len(memory) < size + _ALIGNMENT:
            memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8)
            if size <= _MAX_KEPT:
                self._of_thread.memory = memory
        start = -memory.data_ptr() % _ALIGNMENT
        return memory[start : start + size]


class Library:
    """The functions of a compiled variant. ctypes lets go of the GIL while they compute.

    Each raises `InvalidArguments`, and `MemoryError`.
    """

    def __init__(self, file: Path) -> None:
        library = ctypes.CDLL(str(file))
        library.lw_compiler.restype = c_char_p
        # Variant, digest of sources and flags, version of the compiler: what its bits depend on.
        self.name = f"{file.stem} {library.lw_compiler().decode()}"
        self.is_usable: bool = library.lw_is_usable() == 1
        self._workspace = _Workspace()
        encoder, attention = (
            (POINTER(EncoderStruct), POINTER(BatchStruct)),
            (POINTER(AttentionStruct),),
        )
        sizes = library.lw_encode_workspace, library.lw_attention_workspace
        self.encode = self._function(library.lw_encode, sizes[0], encoder)
        self.attention_forward = self._function(library.lw_attention_forward, sizes[1], attention)
        self.attention_backward = self._function(library.lw_attention_backward, sizes[1], attention)

    def _function(self, function: Any, size: Any, types: tuple[Any, ...]) -> Callable[..., None]:
        """Return a function of structures and a number of threads, which gets its workspace."""
        size.argtypes, size.restype = (*types, c_int), c_size_t
        function.argtypes = (*types, c_int, c_void_p, c_size_t)

        def call(*arguments: Any, threads: int) -> None:
            workspace = self._workspace.get(size(*arguments, threads))
            status = function(*arguments, threads, workspace.data_ptr(), workspace.nbytes)
            if status == _INVALID:
                raise InvalidArguments(f"the native engine refused to compute {function.__name__}")
            if status == _NO_MEMORY:
                raise MemoryError(f"the native engine has no memory for {function.__name__}")

        return call


@cache
def best_library() -> Library | None:
    """Return the fastest variant that was built and that this machine can load and run."""
    available = set(cpu.numeric_instruction_sets())
    for variant, (needs, _) in reversed(list(VARIANTS.items())):
        file = library_file(variant)
        if variant == "portable" or not available.issuperset(needs):
            continue
        if not file.exists():
            if any(file.parent.glob(f"{variant}-*.so")):
                log.warning(
                    "%s was built from other sources, so torch or a slower variant computes; "
                    "`python -m lora_core.fast.native.build` builds it",
                    variant,
                )
            continue
        try:
            library = Library(file)
        except OSError as error:  # such as a mount with noexec, or no libstdc++
            log.warning("%s was not loaded, so torch or a slower variant computes: %s", file, error)
        else:
            if library.is_usable:
                return library
    return None
