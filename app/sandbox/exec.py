"""Set limits on this process, take the network away from it, then become another program.

    python -m app.sandbox.exec MEMORY_BYTES CPU_SECONDS FILE_BYTES PROGRAM [ARGUMENT …]

A process of its own sets them because the service has threads, and Python code between fork and
exec of a threaded process can hang. There is no limit on the number of processes: the system counts
it over all processes of the user.
"""

import ctypes
import os
import resource
import sys

# As `os` has them from Python 3.12 on.
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _unplug() -> None:
    """An empty network of its own, where the system lets us: containers often do not.

    Users need a user namespace for it. Root does not, and would lose its rights on files of others.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "unshare"):
        libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0))


def main(arguments: list[str]) -> None:
    """Never returns."""
    memory, seconds, file_bytes, program, *rest = arguments
    os.nice(10)  # answers to callers come first
    _unplug()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, int(seconds))
    _limit(resource.RLIMIT_FSIZE, int(file_bytes))
    _limit(resource.RLIMIT_AS, int(memory))
    os.execv(program, [program, *rest])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
