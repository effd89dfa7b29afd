"""Set limits on this process, then become another program.

    python -m app.limited MEMORY_BYTES CPU_SECONDS FILE_BYTES PROGRAM [ARGUMENT …]

A process of its own sets them because the service has threads, and Python code between fork and
exec of a threaded process can hang. There is no limit on the number of processes: the system counts
it over all processes of the user.
"""

import os
import resource
import sys


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def main(arguments: list[str]) -> None:
    """Never returns."""
    memory, seconds, file_bytes, program, *rest = arguments
    os.nice(10)  # answers to callers come first
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, int(seconds))
    _limit(resource.RLIMIT_FSIZE, int(file_bytes))
    _limit(resource.RLIMIT_AS, int(memory))
    os.execv(program, [program, *rest])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
