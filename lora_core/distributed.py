"""The processes of one run, as `torchrun` starts them: each computes its share of every update.

A process alone is the first of one, and then nothing here does anything. What is agreed on goes
from CPU to CPU (gloo), which notices at once that a process has ended; gradients go between the
devices that hold them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from lora_core import child_protocol
from lora_core.errors import LoraCoreError
from lora_core.errors.training import ProcessLost, Stopped
from lora_core.events import StopSignal

PATIENCE = timedelta(days=7)  # the first may prepare for hours; nobody is missed by waiting


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes for the time of a run.

    An error is told by the one that has it first. The others have the same or one that follows from
    it, and exit silently, as stopped if that one was asked to stop.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, own, all_of_them = next(rendezvous("env://"))
    dist.init_process_group(
        backend, store=store, rank=own, world_size=all_of_them, timeout=PATIENCE
    )
    try:
        yield
    except LoraCoreError as error:
        stopped = isinstance(error, Stopped)
        if store.add("failed", 1) > 1:
            stopped = stopped or store.check(["stopped"])
            raise SystemExit(
                child_protocol.STOPPED if stopped else child_protocol.FAILED
            ) from error
        if stopped:
            store.set("stopped", "")  # before the connections close, which the others notice
        raise
    finally:
        leave()


def leave() -> bool:
    """The end of what is done together: whether this process goes on, alone."""
    goes_on = is_main()
    if dist.is_initialized():
        dist.destroy_process_group()
    return goes_on


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is rank 0, the one that speaks and writes."""
    return rank() == 0


def of_this_machine() -> tuple[int, int]:
    """The number of this one among those of this machine, and how many they are."""
    if world_size() == 1:
        return 0, 1
    return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])


@contextmanager
def main_first() -> Iterator[None]:
    """Rank 0 does this before the others, which find on the disk what it has put there."""
    if not is_main():
        all_reduce(0.0)  # waits for the other call
    yield
    if is_main():
        all_reduce(0.0)


def shard(texts: Sequence[int]) -> Sequence[int]:
    """Dealt out in turn: of texts in the order of their lengths, everybody gets long and short."""
    return texts[rank() :: world_size()]


def shard_batches(batches: Sequence[list[int]]) -> Iterator[list[int]]:
    """The batches of this process. All get equally many, the last of them perhaps of no texts."""
    for i in range(rank(), -(-len(batches) // world_size()) * world_size(), world_size()):
        yield batches[i] if i < len(batches) else []


def all_reduce(value: float) -> float:
    """The sum over all processes."""
    if world_size() == 1:
        return value
    added = torch.tensor(value, dtype=torch.float64)
    _all_reduce(added)
    return added.item()


def all_reduce_rows(rows: NDArray[np.float32]) -> None:
    """Put together what each has filled in; the rest of its rows is 0."""
    _all_reduce(torch.from_numpy(rows))


def all_reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Everybody gets the gradient of the whole update; no texts, no part in it."""
    if world_size() == 1:
        return
    own = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    added = torch.cat([gradient.flatten() for gradient in own])
    _all_reduce(added)
    end = 0
    for parameter in parameters:
        begin, end = end, end + parameter.numel()
        parameter.grad = added[begin:end].view_as(parameter)


class Together:
    """A stop signal that all hear at the same step, whoever was asked."""

    def __init__(self, own: StopSignal) -> None:
        self._own = own

    def requested(self) -> bool:
        return all_reduce(float(self._own.requested())) > 0


def _all_reduce(tensor: Tensor) -> None:
    if world_size() == 1:
        return
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:  # the word of torch for a connection that was closed
        raise ProcessLost(reason=str(error).partition("\n")[0]) from error
