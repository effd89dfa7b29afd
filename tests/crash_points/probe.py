"""Records the crash points that a process passes, or injects one fault at one of them.

A crash point is a call whose effect survives the process: a commit, an fsync, a rename, a removed
file, a change of the artifact store, a message to the broker, a started process. They are found by
wrapping these calls. Points with the same operation, call site and state of the job are one class;
without line numbers, so that other changes of a file leave its classes as they are. The state of a
commit says what it changes, too, since a function such as the one that finishes an attempt commits
its success, its failure and its return to the queue.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar, cast

import celery
import psycopg
import pysqlite3.dbapi2 as sqlite
from sqlalchemy.engine.default import DefaultDialect

from app.sandbox import runner
from app.storage.errors import StorageUnavailable
from app.storage.local import LocalStore
from tests.crash_points.sites import name_transaction
from worker import fork_server_supervisor

PACKAGES = ("app", "worker", "lora_core")
FAILPOINTS = "lora_core.failpoints"  # removes the file of a test
# Code that others call to reach the disk or the database. Who calls it belongs to the site.
LAYERS_BELOW = ("app.database.", "app.storage.", "app.sandbox.", "lora_core.atomic_files")

_Result = TypeVar("_Result")


class Fault(StrEnum):
    """What happens at a crash point."""

    KILL_BEFORE = "kill_before"  # SIGKILL instead of the call
    KILL_AFTER = "kill_after"
    DISK_FULL = "disk_full"
    IO_ERROR = "io_error"
    UNAVAILABLE = "unavailable"
    CONNECTION_LOST = "connection_lost"  # before the call had an effect
    RESPONSE_LOST = "response_lost"  # it had an effect, and raises
    CONFLICT = "conflict"  # a serialization failure
    NO_PROCESS = "no_process"  # the limit of processes is reached


class Operation(StrEnum):
    """The kind of a call."""

    COMMIT = "commit"
    FSYNC = "fsync"
    RENAME = "rename"
    UNLINK = "unlink"
    STORE = "store"
    BROKER = "broker"
    SPAWN = "spawn"


_KILLS = (Fault.KILL_BEFORE, Fault.KILL_AFTER)
_ON_DISK = (*_KILLS, Fault.DISK_FULL, Fault.IO_ERROR)
_FAULTS = {
    Operation.FSYNC: _ON_DISK,
    Operation.RENAME: _ON_DISK,
    Operation.UNLINK: (*_KILLS, Fault.IO_ERROR),
    Operation.STORE: (*_KILLS, Fault.DISK_FULL, Fault.UNAVAILABLE),
    Operation.BROKER: (*_KILLS, Fault.CONNECTION_LOST),
    Operation.SPAWN: (*_KILLS, Fault.NO_PROCESS),
}
_FAULTS_OF_COMMITS = {
    "sqlite": _ON_DISK,
    "postgresql": (*_KILLS, Fault.CONNECTION_LOST, Fault.RESPONSE_LOST, Fault.CONFLICT),
}


@dataclass(frozen=True, order=True)
class CrashPoint:
    """A class of crash points."""

    operation: Operation
    site: str  # module:function, and who called it if it is one of `LAYERS_BELOW`
    state: str  # of the job, as it is committed; and what a commit changes

    @classmethod
    def of_json(cls, values: dict[str, str]) -> "CrashPoint":
        return cls(Operation(values["operation"]), values["site"], values["state"])

    def faults(self, database: str) -> tuple[Fault, ...]:
        """What may happen here, on this kind of database."""
        if self.operation is Operation.COMMIT:
            return _FAULTS_OF_COMMITS[database]
        return _FAULTS[self.operation]


class Injection(NamedTuple):
    """One fault. It happens once: when `marker` is created, which outlives the process."""

    point: CrashPoint
    fault: Fault
    marker: Path


class Probe:
    """What the wrapped calls of this process do: append their class to `log`, or fail once."""

    def __init__(
        self, job_state: Callable[[Any], str], *, log: Path, injection: Injection | None
    ) -> None:
        """Start. `job_state` gets the connection that commits, or None."""
        self.job_state = job_state
        self._log = log
        self._injection = injection

    def install(self) -> None:
        """Wrap the calls, for the rest of this process and those that it forks."""
        self._wrap(DefaultDialect, "do_commit", Operation.COMMIT)
        self._wrap(os, "fsync", Operation.FSYNC)
        for name in ("rename", "replace", "link"):
            self._wrap(os, name, Operation.RENAME)
        for name in ("unlink", "remove"):
            self._wrap(os, name, Operation.UNLINK)
        for name in ("move_directory_into_store", "move_file_into_store", "delete"):
            self._wrap(LocalStore, name, Operation.STORE)
        self._wrap(celery.Celery, "send_task", Operation.BROKER)
        self._wrap(subprocess, "Popen", Operation.SPAWN)
        self._wrap(runner, "run_lora_core_sandboxed", Operation.SPAWN)
        self._wrap(fork_server_supervisor._ServerProcess, "fork", Operation.SPAWN)

    def _wrap(self, owner: Any, name: str, operation: Operation) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return self._pass(operation, lambda: original(*args, **kwargs), args)

        setattr(owner, name, wrapped)

    def _pass(
        self, operation: Operation, call: Callable[[], _Result], args: tuple[Any, ...]
    ) -> _Result:
        site = _call_site(operation)
        if site is None:
            return call()
        connection = args[1] if operation is Operation.COMMIT else None
        if self._injection is None:
            self._record(CrashPoint(operation, site, self._state(operation, connection)))
            return call()
        point, fault, marker = self._injection
        if (operation, site) != (point.operation, point.site):
            return call()
        if (
            marker.exists()
            or self._state(operation, connection) != point.state
            or not _create(marker)
        ):
            return call()
        if fault is Fault.KILL_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault in (Fault.KILL_AFTER, Fault.RESPONSE_LOST):
            result = call()
            if fault is Fault.RESPONSE_LOST:
                raise _error(operation, fault, args)
            os.kill(os.getpid(), signal.SIGKILL)
            return result
        raise _error(operation, fault, args)

    def _record(self, point: CrashPoint) -> None:
        line = json.dumps(asdict(point)) + "\n"
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def _state(self, operation: Operation, connection: Any) -> str:
        # A task is sent by a thread of its own, and only while its job is queued.
        return "queued" if operation is Operation.BROKER else self.job_state(connection)


def _call_site(operation: Operation) -> str | None:
    """Return the function that makes the call, and the one that uses its layer. None: a test."""
    inner = outer = ""
    frame = cast("FrameType | None", sys._getframe(3))
    if frame is None or frame.f_globals["__name__"].startswith("tests."):
        return None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == FAILPOINTS:
            return None
        if module.partition(".")[0] in PACKAGES:
            name = frame.f_code.co_qualname
            if operation is Operation.COMMIT:
                name = name_transaction(module, name, frame.f_lineno)
            outer = f"{module}:{name}"
            inner = inner or outer
            if not f"{module}.".startswith(LAYERS_BELOW):
                return inner if inner == outer else f"{inner} of {outer}"
        frame = frame.f_back
    return None


def _create(marker: Path) -> bool:
    """Create a file; return False if another process has been faster."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _error(operation: Operation, fault: Fault, args: tuple[Any, ...]) -> Exception:
    if operation is Operation.COMMIT:
        return _database_error(fault, args[1])
    match fault:
        case Fault.DISK_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case Fault.IO_ERROR:
            return OSError(errno.EIO, os.strerror(errno.EIO))
        case Fault.UNAVAILABLE:
            return StorageUnavailable(reason=os.strerror(errno.EIO))
        case Fault.CONNECTION_LOST:
            return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        case _:
            return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _database_error(fault: Fault, connection: Any) -> Exception:
    """Return the error of the driver; a lost connection is closed."""
    if fault in (Fault.DISK_FULL, Fault.IO_ERROR):
        full = fault is Fault.DISK_FULL
        error: Any = sqlite.OperationalError(
            "database or disk is full" if full else "disk I/O error"
        )
        error.sqlite_errorcode = sqlite.SQLITE_FULL if full else sqlite.SQLITE_IOERR
        return cast("Exception", error)
    if fault is Fault.CONFLICT:
        connection.driver_connection.rollback()  # as the server does
        return psycopg.errors.SerializationFailure("could not serialize access")
    connection.driver_connection.close()
    return psycopg.OperationalError("the connection was lost")
