"""Executes a command that cannot outlive the thread that started it.

Run as a script, never imported:

    python die_with_parent_exec.py PARENT_PID COMMAND ARGUMENT...

The parent-death signal and the niceness survive exec. Setting them here, in a fresh interpreter,
avoids running Python code between fork and exec, which is unsafe in a process with threads.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
NICENESS = 7  # the API has priority, but a busy machine does not starve the training


def main(parent: int, command: list[str]) -> None:
    """Set up this process and replace it with `command`. Never returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit("the parent exited before the death signal was set")
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must not fill the disk
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
