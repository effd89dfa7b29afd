"""What a process of the service writes and knows is for its own user, and its children, alone."""

import ctypes
import os

PR_SET_DUMPABLE = 4


def keep_private() -> None:
    """Files that this process makes are closed to others, whatever the mode of the data folder:
    its operator may have made it open to others.

    Other processes of the same user, such as a training, cannot read its environment, which may
    hold passwords, nor its memory: the kernel gives `/proc/PID/environ` and the like to root, and
    lets nobody but root attach a debugger. It dumps no core. Programs that it starts get the
    usual rights again.
    """
    os.umask(0o077)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):  # Linux
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
