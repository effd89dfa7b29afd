"""Which process is which, beyond the reuse of process ids.

Linux numbers processes anew, so (boot id, pid, start time) is what names one for good.
"""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from app.queue.fencing import Owner

_PROC = Path("/proc")


class Process(NamedTuple):
    """One process of one run of one machine."""

    boot_id: str
    pid: int
    start: int  # clock ticks since boot


class _Stat(NamedTuple):
    state: str
    group: int
    start: int


def boot_id() -> str:
    """`start of the machine/container`: within both, a number means one process at a time."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}"


def process(pid: int) -> Process:
    """The process that has this number now. Raises `ProcessLookupError` if there is none."""
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return Process(boot_id(), pid, stat.start)


def alive(known: Process) -> bool:
    """Whether exactly this process still runs. One that only waits to be reaped does not."""
    if known.boot_id != boot_id():
        return False
    stat = _stat(known.pid)
    return stat is not None and stat.start == known.start and stat.state not in "ZX"


def this_worker() -> Owner:
    """Name this process as the owner of jobs."""
    me = process(os.getpid())
    host = socket.gethostname()
    name = f"{host[:64]}-{me.pid}-{me.start}-{me.boot_id[:8]}"
    return Owner(id=name, host=host, boot_id=me.boot_id, pid=me.pid, pid_start=me.start)


def gone(owner: Owner, *, silent: bool) -> bool:
    """Whether a worker is known to be dead. One in another container is not to be seen from here,
    even if that has the name of this machine.

    Another boot is this machine before it was restarted, or another one of the same name, as a
    cloned one has. `silent`, which is whether the worker says nothing any more, tells them apart.
    """
    if owner.host != socket.gethostname():
        return False
    boot, container = owner.boot_id.split("/") if "/" in owner.boot_id else (owner.boot_id, "")
    own_boot, own_container = boot_id().split("/")
    if boot != own_boot:
        return silent
    known = Process(owner.boot_id, owner.pid, owner.pid_start)
    return container == own_container and not alive(known)


def kill_group(leader: Process) -> None:
    """Kill what is left of the process group that `leader` led, if that was in this boot.

    While a group has members its number is given to no new process, so a group without its leader
    is the old one; a leader with another start time leads a group of strangers.
    """
    if leader.boot_id != boot_id():
        return
    stat = _stat(leader.pid)
    if stat is not None and stat.start != leader.start:
        return
    if stat is not None or _has_members(leader.pid):
        with suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)


def _has_members(group: int) -> bool:
    stats = (_stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return any(stat is not None and stat.group == group for stat in stats)


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    return _Stat(state=fields[0], group=int(fields[2]), start=int(fields[19]))
