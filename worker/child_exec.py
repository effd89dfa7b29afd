"""Starts a command that cannot outlive the thread that asked for it. Run as a file, never imported.

    python tether.py PARENT_PID COMMAND ARGUMENT...

The kernel keeps death signal and niceness when the command takes this process over. Doing it here,
in a fresh interpreter, keeps Python code out of the moment between fork and exec, where it is not
safe in a process with threads.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
NICENESS = 5  # the service answers first, but a busy machine does not starve the training


def main(parent: int, command: list[str]) -> None:
    """Never returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit("the parent left before its signal was set")
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must not fill the disk
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
