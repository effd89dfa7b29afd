"""Settings of a process: its cores, its threads, its memory, its garbage collector."""

import ctypes
import errno
import gc
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

CGROUP_ROOT, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_RETAINED_BYTES = 2**30
_GC_THRESHOLD = 5_000  # new objects; Python's 700 or 2,000 are those of a few requests
_MAX_CACHED_KERNELS = "192"  # per thread


def is_oom_error(error: BaseException) -> bool:
    """Return whether Python, the operating system or torch failed to allocate memory.

    For host memory torch raises a plain RuntimeError, which only its message identifies. Its
    `OutOfMemoryError`, for the memory of a GPU, is recognized by name: torch may not be imported.
    """
    from_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    from_torch = isinstance(error, RuntimeError) and (
        any(each in str(error) for each in ("DefaultCPUAllocator", "bad_alloc"))
        or type(error).__name__ == "OutOfMemoryError"
    )
    return isinstance(error, MemoryError) or from_system or from_torch


def available_cores(root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int:
    """Return the number of cores that this process may use, rounded up.

    More threads would use up the CPU quota of a container earlier in each period, and be throttled
    until it ends.
    """
    cores = len(os.sched_getaffinity(0))
    for limit in read_cgroup_files("cpu.max", root, own_cgroup):
        quota, _, period = limit.partition(" ")
        if quota.isdecimal():
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return cores


def read_cgroup_files(name: str, root: Path, own_cgroup: Path) -> list[str]:
    """Return the contents of a file of this process's cgroup and of those above it.

    A container may see only its own cgroup, as the root. Empty without cgroups v2.
    """
    try:
        lines = own_cgroup.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    own = root / next((line[4:] for line in lines if line.startswith("0::/")), "")
    contents = []
    for directory in (own, *own.parents):
        if directory.is_relative_to(root):
            with suppress(OSError):
                contents.append((directory / name).read_text(encoding="ascii"))
    return contents


def torchrun_world_size() -> int:
    """Return how many processes `torchrun` has started for this run; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_rank_zero() -> bool:
    """Return whether this is the process of its run that reports events and writes files."""
    return os.environ.get("RANK", "0") == "0"


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that is its parent ends.

    Raises `OSError`, and `ProcessLookupError` if the process `parent` is not the parent any more.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, "the parent exited before the death signal was set")


def set_dumpable(dumpable: bool) -> None:
    """Set whether other processes of this user can read and change the memory of this one.

    This has an effect only on Linux.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_process_name(name: str) -> None:
    """Set the name of this process in `top` and `ps -o comm`, which show 15 characters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def limit_openmp_spinning() -> None:
    """Let idle OpenMP threads spin for only some microseconds before they sleep.

    A spinning thread occupies a core that another process needs (docs/decisions/0009).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def limit_onednn_cache() -> None:
    """Limit the cache of oneDNN kernels, which saves memory.

    oneDNN builds a kernel for each shape of a matrix product, 0.4 MB on average, and torch caches
    1,024 of them per thread. Fewer had no measurable effect on speed (docs/decisions/0019).
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, _MAX_CACHED_KERNELS)


def retain_freed_memory() -> None:
    """Reuse the buffers of one step in the next, instead of returning them to the system.

    This avoids page faults. It has an effect only with glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _RETAINED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _RETAINED_BYTES)


@contextmanager
def disable_gc_then_freeze_imports() -> Iterator[None]:
    """Import torch and transformers without garbage collection, which takes a third of the time.

    What is in memory afterwards is exempt from collection. Nothing is exempted if all modules have
    been imported before: the models of a server that loads and evicts them must stay collectable.
    """
    modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        gc.enable()


@cache
def collect_and_freeze_gc_once() -> None:
    """Exempt everything that is in memory at the first call from garbage collection.

    With torch and transformers loaded, a full collection stops every thread for 0.3 s. Reference
    counting still frees what is no longer used. From then on, collections are rarer: hundreds of
    requests in progress are thousands of objects, and requests leave no cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
