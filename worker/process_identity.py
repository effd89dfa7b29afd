"""Identifies processes beyond the reuse of process ids.

Linux reuses pids, so a process is identified by (boot id, pid, start time).
"""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from app.queue.fencing import WorkerIdentity

_PROC = Path("/proc")


class ProcessIdentity(NamedTuple):
    """Identifies a process across pid reuse and reboots."""

    boot_id: str
    pid: int
    start: int  # clock ticks since boot


class _ProcStat(NamedTuple):
    state: str
    pgid: int
    start: int


def boot_and_pid_namespace_id() -> str:
    """Return `<boot id>/<pid namespace>`: within both, a pid means one process at a time."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}"


def identify(pid: int) -> ProcessIdentity:
    """Return the process that has this pid now. Raises `ProcessLookupError` if there is none."""
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return ProcessIdentity(boot_and_pid_namespace_id(), pid, stat.start)


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether exactly this process still runs. A zombie does not."""
    if identity.boot_id != boot_and_pid_namespace_id():
        return False
    stat = _stat(identity.pid)
    return stat is not None and stat.start == identity.start and stat.state not in "ZX"


def current_worker() -> WorkerIdentity:
    """Return the identity of this process as the owner of jobs."""
    identity = identify(os.getpid())
    host = socket.gethostname()
    name = f"{host[:64]}-{identity.pid}-{identity.start}-{identity.boot_id[:8]}"
    return WorkerIdentity(
        id=name, host=host, boot_id=identity.boot_id, pid=identity.pid, pid_start=identity.start
    )


def is_worker_known_dead(owner: WorkerIdentity, *, silent: bool) -> bool:
    """Return whether a worker is known to be dead.

    False for a worker in another container, even one with this host's name: it cannot be seen here.
    A different boot id means this host before a reboot, or a clone with the same name. `silent`
    (the worker has stopped sending heartbeats) tells them apart.
    """
    if owner.host != socket.gethostname():
        return False
    boot, container = owner.boot_id.split("/") if "/" in owner.boot_id else (owner.boot_id, "")
    own_boot, own_container = boot_and_pid_namespace_id().split("/")
    if boot != own_boot:
        return silent
    identity = ProcessIdentity(owner.boot_id, owner.pid, owner.pid_start)
    return container == own_container and not is_alive(identity)


def kill_group(leader: ProcessIdentity) -> None:
    """Kill what is left of the process group that `leader` led during this boot.

    Linux does not reuse a pid while a process group has that id. So a group without its leader is
    the old one, and a leader with another start time leads an unrelated group.
    """
    if leader.boot_id != boot_and_pid_namespace_id():
        return
    stat = _stat(leader.pid)
    if stat is not None and stat.start != leader.start:
        return
    if stat is not None or _has_members(leader.pid):
        with suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)


def _has_members(pgid: int) -> bool:
    stats = (_stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return any(stat is not None and stat.pgid == pgid for stat in stats)


def _stat(pid: int) -> _ProcStat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the command name before it may contain anything
    return _ProcStat(state=fields[0], pgid=int(fields[2]), start=int(fields[19]))
