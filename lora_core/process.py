"""How a process shares the machine: its cores, its threads, its memory."""

import ctypes
import errno
import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt
_KEPT = 2**30  # bytes
_KERNELS = "192"


def is_no_memory(error: BaseException) -> bool:
    """Whether this is the word of Python, of the system or of torch for no memory on the host.

    torch has no class for it, only words.
    """
    out = isinstance(error, OSError) and error.errno == errno.ENOMEM
    words = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or out or words


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def of_one_run() -> int:
    """How many processes `torchrun` has started for the run that this one belongs to."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_of_run() -> bool:
    """Whether this is the process of its run that speaks and saves."""
    return os.environ.get("RANK", "0") == "0"


def wait_passively() -> None:
    """Idle OpenMP threads spin for some microseconds, then sleep.

    A spinning thread holds a core that another process needs (docs/decisions/0009).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def keep_few_kernels() -> None:
    """oneDNN builds a kernel for each shape of a product, 0.4 MB on average, and torch keeps 1,024
    of them a thread. Fewer cost no speed that could be measured (docs/decisions/0019).
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, _KERNELS)


def keep_freed_memory() -> None:
    """Buffers of one step serve the next, instead of going back to the system and being faulted in.

    Only with glibc; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


@contextmanager
def importing() -> Iterator[None]:
    """For torch and transformers, without the garbage collector: a third of the time of an import
    goes into looking through what they make. What is there afterwards is exempt from it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@cache
def exempt_from_collection() -> None:
    """What is in memory at the first call is never looked at again by the garbage collector.

    With torch and transformers loaded, a full collection stops every thread for 0.3 s; what is not
    used any more still goes by its count of references.
    """
    gc.collect()
    gc.freeze()


def start_anew(directory: Path) -> None:
    """Let the process be as if it began now, and in this directory: its peak of memory, its place
    for temporary files, and `child.log` for what it writes to standard error.
    """
    gc.collect()  # what the run before has left
    with suppress(OSError):  # not every kernel can; the peak is that of all runs then
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    os.chdir(directory)
    os.environ["TMPDIR"] = str(directory / "tmp")
    tempfile.tempdir = None
    with (directory / "child.log").open("ab") as log:
        for stream in (1, 2):  # prints go to the log as well
            os.dup2(log.fileno(), stream)
