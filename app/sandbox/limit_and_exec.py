"""Set resource limits on this process, confine it, then exec another program.

    python -m app.sandbox.limit_and_exec MEMORY_BYTES CPU_SECONDS FILE_BYTES CONFINEMENT PROGRAM
        [ARGUMENT …]

CONFINEMENT is a `Confinement` as JSON.

A separate process does this because the service has threads, and Python code between fork and exec
of a threaded process can deadlock. There is no limit on the number of processes, because the kernel
counts all processes of the user.
"""

import json
import os
import resource
import sys

from lora_core.confinement import Confinement, confine_process


def _set_limit(kind: int, value: int, *, hard: int | None = None) -> None:
    hard = value if hard is None else hard
    _, inherited = resource.getrlimit(kind)
    if inherited != resource.RLIM_INFINITY:
        hard = min(hard, inherited)
    resource.setrlimit(kind, (min(value, hard), hard))


def main(arguments: list[str]) -> None:
    """Set the limits and exec the program. Never returns. Raises `OSError`."""
    memory, seconds, file_bytes, confinement, program, *rest = arguments
    os.nice(10)  # requests have priority
    confine_process(Confinement(*json.loads(confinement)))
    _set_limit(resource.RLIMIT_CORE, 0)
    # Linux sends SIGXCPU at the soft limit. At the hard one it sends SIGKILL, like for memory.
    _set_limit(resource.RLIMIT_CPU, int(seconds), hard=int(seconds) + 1)
    _set_limit(resource.RLIMIT_FSIZE, int(file_bytes))
    _set_limit(resource.RLIMIT_AS, int(memory))
    os.execv(program, [program, *rest])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
