"""Executes a command as in a container on an old kernel: without Landlock and namespaces.

The system calls fail.

python without_landlock.py COMMAND ARGUMENT...
"""

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
FIRST, LAST = 444, 446  # landlock_create_ruleset, landlock_restrict_self
UNSHARE = 272 if platform.machine() == "x86_64" else 97
LOAD_NUMBER, IF_EQUAL, IF_AT_LEAST, IF_GREATER, RETURN = 0x20, 0x15, 0x35, 0x25, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000 | errno.ENOSYS

# Instruction, how many to skip if true and if false, operand.
INSTRUCTIONS = (
    (LOAD_NUMBER, 0, 0, 0),
    (IF_EQUAL, 2, 0, UNSHARE),
    (IF_AT_LEAST, 0, 2, FIRST),
    (IF_GREATER, 1, 0, LAST),
    (RETURN, 0, 0, FAIL),
    (RETURN, 0, 0, ALLOW),
)


def refuse_confinement() -> None:
    """Let these system calls fail in this process and all that it starts."""
    code = b"".join(struct.pack("=HBBI", *each) for each in INSTRUCTIONS)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(INSTRUCTIONS), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse_confinement()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - a list, no shell
