"""Set resource limits on this process, isolate it from the network, then exec another program.

    python -m app.sandbox.limit_and_exec MEMORY_BYTES CPU_SECONDS FILE_BYTES PROGRAM [ARGUMENT …]

A separate process does this because the service has threads, and Python code between fork and exec
of a threaded process can deadlock. There is no limit on the number of processes, because the kernel
counts all processes of the user.
"""

import ctypes
import os
import resource
import sys

# `os` has these constants from Python 3.12 on.
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def _set_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _isolate_network() -> None:
    """Move to an empty network namespace, if the system permits it: containers often do not.

    Unprivileged users need a user namespace for it. Root does not, and would lose its access to
    files of other users in one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "unshare"):
        libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0))


def main(arguments: list[str]) -> None:
    """Set the limits and exec the program. Never returns."""
    memory, seconds, file_bytes, program, *rest = arguments
    os.nice(10)  # requests have priority
    _isolate_network()
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_CPU, int(seconds))
    _set_limit(resource.RLIMIT_FSIZE, int(file_bytes))
    _set_limit(resource.RLIMIT_AS, int(memory))
    os.execv(program, [program, *rest])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
