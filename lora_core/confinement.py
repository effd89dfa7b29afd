"""Confines this process to the files that it needs, and cuts it off from the network.

Run as a script, it confines itself and then executes a command:

    python -I -S confinement.py CONFINEMENT COMMAND ARGUMENT...

Without arguments, it fails if the system does not permit a network namespace.

Landlock denies access to files (Linux 5.13). An empty network namespace cuts off the network where
the system permits one; Landlock denies TCP (Linux 6.7) also where it does not. What the kernel
cannot do is left out; `landlock_abi` returns its version.
"""

import ctypes
import json
import os
import stat
import struct
import sys
from typing import NamedTuple

TRUNCATE_ABI, TCP_ABI, SIGNAL_ABI = 3, 4, 6  # of Landlock: the first that deny it

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # in `os` from Python 3.12 on
_PR_SET_NO_NEW_PRIVS = 38

# System calls; these numbers are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1

# Rights of <linux/landlock.h>.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_ALL = (1 << 16) - 1
_SCOPES = 0b11  # abstract sockets and signals of processes outside
_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15}  # how many there are; from 5 on, all of these
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # the rest: directories

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _ALL & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)
_USE_DEVICE = _READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV


class Confinement(NamedTuple):
    """What a process may reach. Each path stands for all that is below it; missing ones do not
    matter."""

    readable: tuple[str, ...]  # also executable
    listable: tuple[str, ...]  # directories whose names it may read, but not the files
    writable: tuple[str, ...]  # also readable, not executable
    unlisted: tuple[str, ...]  # like `writable`, but without the names of what is in it
    devices: tuple[str, ...]
    network: bool


def landlock_abi() -> int:
    """Return the version of the kernel's interface to Landlock; 0 if it has none, or it is off."""
    try:
        return _syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def denies_signals() -> bool:
    """Return whether Landlock can keep a process from sending signals to those outside.

    Kernels of RHEL 9 cannot, though they report the version that can.
    """
    try:
        os.close(_create(0, 0, _SCOPES))
    except OSError:
        return False
    return True


def confine_process(confinement: Confinement, *, abi: int | None = None) -> None:
    """Confine this process, which must have a single thread, and all that it starts later.

    It also gains no privileges from the programs that it executes. `abi` is that of the kernel, or
    an older one. Raises `OSError`.
    """
    if not confinement.network:
        isolate_network()
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    abi = landlock_abi() if abi is None else abi
    if abi == 0:
        return
    rights = (1 << _RIGHTS_OF_ABI.get(abi, 16)) - 1
    ruleset = _create_ruleset(rights, abi, confinement)
    try:
        for path in confinement.readable:
            _allow(ruleset, path, _READ & rights)
        for path in confinement.listable:
            _allow(ruleset, path, _READ_DIR & rights)
        for path in confinement.writable:
            _allow(ruleset, path, _WRITE & rights)
        for path in confinement.unlisted:
            _allow(ruleset, path, _WRITE & ~_READ_DIR & rights)
        for path in confinement.devices:
            _allow(ruleset, path, _USE_DEVICE & rights)
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def isolate_network() -> bool:
    """Move to an empty network namespace; return whether the system permits it.

    Containers often do not. Unprivileged users need a user namespace for it. Root does not, and
    would lose its access to files of other users in one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    namespaces = CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0)
    return hasattr(libc, "unshare") and libc.unshare(namespaces) == 0


def _create_ruleset(rights: int, abi: int, confinement: Confinement) -> int:
    """Return a ruleset that denies everything that it can deny."""
    tcp = 0b11 if abi >= TCP_ABI and not confinement.network else 0  # to bind and to connect
    scopes = _SCOPES if abi >= SIGNAL_ABI and denies_signals() else 0
    return _create(rights, tcp, scopes)


def _create(files: int, tcp: int, scopes: int) -> int:
    attributes = struct.pack("=QQQ", files, tcp, scopes)
    return _syscall(_CREATE_RULESET, attributes, len(attributes), 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # missing, or out of reach anyway
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        if rights:
            _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    result: int = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(0 if isolate_network() else 1)
    confine_process(Confinement(*json.loads(sys.argv[1])))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - a list, no shell
