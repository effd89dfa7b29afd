"""The processes of one run, as started by `torchrun`: each computes a share of every update.

In a single process nothing here has any effect. Decisions are exchanged between CPUs (gloo), which
notices at once if a process has ended; gradients are exchanged between the devices that hold them.
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
from lora_core.errors.training import DistributedProcessLost, StopRequested
from lora_core.events import StopSignal

# Rank 0 may prepare for hours. The timeout need not detect lost processes: gloo does.
TIMEOUT = timedelta(days=7)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group for the duration of a run.

    The process that fails first reports its error. The others have the same error, or one caused by
    it, and exit silently, with the status `EXIT_STOPPED` if the first one was asked to stop.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, world_size = next(rendezvous("env://"))
    try:
        with _lost_connection_as_process_lost():  # another process may have failed already
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT
            )
        yield
    except LoraCoreError as error:
        stopped = isinstance(error, StopRequested)
        if store.add("failed", 1) > 1:
            stopped = stopped or store.check(["stopped"])
            raise SystemExit(
                child_protocol.EXIT_STOPPED if stopped else child_protocol.EXIT_FAILED
            ) from error
        if stopped:
            store.set("stopped", "")  # before the connections close, which the others notice
        raise
    finally:
        destroy_group_and_check_main()


def destroy_group_and_check_main() -> bool:
    """End the distributed part of a run; return whether this process (rank 0) continues alone."""
    continues = is_main_process()
    if dist.is_initialized():
        dist.destroy_process_group()
    return continues


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Return whether this is rank 0, which reports events and writes files."""
    return rank() == 0


def local_rank_and_size() -> tuple[int, int]:
    """Return the number of this process on this machine, and how many processes it runs."""
    if world_size() == 1:
        return 0, 1
    return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block on rank 0 first, then on the others, which find its results on disk."""
    if not is_main_process():
        all_reduce_scalar(0.0)  # waits until rank 0 makes its call
    yield
    if is_main_process():
        all_reduce_scalar(0.0)


def shard(texts: Sequence[int]) -> Sequence[int]:
    """Return every n-th text: of texts sorted by length, each process gets short and long ones."""
    return texts[rank() :: world_size()]


def shard_batches(batches: Sequence[list[int]]) -> Iterator[list[int]]:
    """Yield the batches of this process: the same number in each, so the last may be empty."""
    for i in range(rank(), -(-len(batches) // world_size()) * world_size(), world_size()):
        yield batches[i] if i < len(batches) else []


def all_reduce_scalar(value: float) -> float:
    """Return the sum over all processes."""
    if world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    _all_reduce(total)
    return total.item()


def all_reduce_rows(rows: NDArray[np.float32]) -> None:
    """Sum in place the rows of all processes, each of which has filled in its share of zeros."""
    _all_reduce(torch.from_numpy(rows))


def all_reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """All-reduce gradients in place. A parameter without a gradient contributes zeros."""
    if world_size() == 1:
        return
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    total = torch.cat([gradient.flatten() for gradient in gradients])
    _all_reduce(total)
    end = 0
    for parameter in parameters:
        begin, end = end, end + parameter.numel()
        parameter.grad = total[begin:end].view_as(parameter)


class DistributedStopSignal:
    """A stop signal that all processes see at the same step, whichever of them was asked."""

    def __init__(self, local: StopSignal) -> None:
        self._local = local

    def requested(self) -> bool:
        return all_reduce_scalar(float(self._local.requested())) > 0


def _all_reduce(tensor: Tensor) -> None:
    if world_size() > 1:
        with _lost_connection_as_process_lost():
            dist.all_reduce(tensor)


@contextmanager
def _lost_connection_as_process_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch raises for a closed connection
        raise DistributedProcessLost(reason=str(error).partition("\n")[0]) from error
