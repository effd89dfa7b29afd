"""A process that has imported what a run needs, and forks a process for each run on a CPU.

    python -P -m lora_core.fork_server

Imports take most of the time before the first step of a short run. This process does nothing else:
it runs no torch operation, starts no thread and uses no GPU, so a forked process gives the same
bits as a fresh interpreter.

Standard input is a Unix socket, which the worker holds. The server sends `READY_MESSAGE` after the
imports. A request is one packet: a `ForkRequest` with three file descriptors, the standard input,
output and error of the process. The process answers with its pid, and starts to run when it
receives a byte on its standard input. EOF, or having grown too much, ends the server.

The process is forked twice, so that its parent exits and the worker, a subreaper at that moment,
adopts it. So the worker waits for it and kills it like any child, and the end of the server does
not affect it.
"""

import importlib
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from lora_core.__main__ import main_and_exit
from lora_core.child_protocol import EXIT_STOPPED, MAX_REQUEST_BYTES, READY_MESSAGE, ForkRequest
from lora_core.confinement import confine_process
from lora_core.encoders import FAMILIES
from lora_core.process_settings import (
    die_with_parent,
    disable_gc_then_freeze_imports,
    limit_openmp_spinning,
    set_dumpable,
    set_process_name,
)

MAX_GROWTH_BYTES = 2**28  # of resident memory, after the imports
_ADOPTION_POLL_SECONDS = 0.0005
_MODULES = (
    "lora_core.batch_prediction",
    "lora_core.embed_file",
    "lora_core.training.auto",
    "lora_core.training.linear",
    "lora_core.training.encoder",
)


def main() -> None:
    """Import, then fork until the worker closes the connection."""
    set_dumpable(False)  # a run must not change the runs that come after it
    limit_openmp_spinning()
    import_modules_without_threads()
    with socket.socket(fileno=os.dup(0)) as connection:
        request = fork_for_each_request(connection)
    if request is not None:
        main_and_exit(request.arguments)


def import_modules_without_threads() -> None:
    """Import what runs need. Exits if that has started a thread: a fork would not copy it."""
    with disable_gc_then_freeze_imports():
        for name in _MODULES:
            importlib.import_module(name)
        conversions = importlib.import_module("transformers.conversion_mapping")
        for model_type in FAMILIES:  # transformers imports and computes these to load a model
            name = model_type.replace("-", "_")
            importlib.import_module(f"transformers.models.{name}.modeling_{name}")
            conversions.get_checkpoint_conversion_mapping(model_type)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        sys.exit(f"cannot fork: the imports have started {threads - 1} threads")


def fork_for_each_request(
    connection: socket.socket, *, max_growth_bytes: int = MAX_GROWTH_BYTES
) -> ForkRequest | None:
    """Fork a process for each request.

    Returns the request in each forked process, once it may run. Returns None in the server when
    the connection ends or its memory has grown by more than `max_growth_bytes`.
    """
    limit = _resident_bytes() + max_growth_bytes
    connection.send(READY_MESSAGE)
    while _resident_bytes() <= limit:
        message, fds, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3)
        if not message:
            break
        intermediate = os.fork()
        if intermediate == 0:
            intermediate = os.getpid()
            if os.fork() != 0:
                os._exit(0)
            request = ForkRequest.model_validate_json(message)
            _become_child(request, fds, connection, forked_by=intermediate)
            return request
        os.waitpid(intermediate, 0)
        for fd in fds:
            os.close(fd)
    return None


def _become_child(
    request: ForkRequest, fds: list[int], connection: socket.socket, *, forked_by: int
) -> None:
    """Make this process what a fresh interpreter would be, and wait for the byte that starts it."""
    os.setsid()
    while os.getppid() == forked_by:
        time.sleep(_ADOPTION_POLL_SECONDS)
    die_with_parent(request.parent)
    set_dumpable(True)
    set_process_name(f"lora_core {request.arguments[0]}")  # its command line is that of the server
    for stream, fd in enumerate(fds):
        os.dup2(fd, stream)
        os.close(fd)
    connection.send(str(os.getpid()).encode())
    connection.close()
    os.chdir(request.directory)
    confine_process(request.confinement)
    os.environ.clear()
    os.environ.update(request.environment)
    tempfile.tempdir = None  # another TMPDIR
    _set_threads(request.environment)
    if not os.read(0, 1):
        os._exit(EXIT_STOPPED)  # the worker has given up this process


def _set_threads(environment: dict[str, str]) -> None:
    """Set the numbers of threads that OpenMP and OpenBLAS read when they were loaded."""
    threads = int(environment["OMP_NUM_THREADS"])
    threadpool_limits(threads, user_api="openmp")
    chosen = environment.get("OPENBLAS_NUM_THREADS", "")
    of_blas = int(chosen) if chosen.isdecimal() and int(chosen) else threads  # as OpenBLAS reads it
    threadpool_limits(min(of_blas, len(os.sched_getaffinity(0))), user_api="blas")


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
