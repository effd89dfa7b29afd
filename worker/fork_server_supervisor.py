"""Keeps a fork server running, and gets training processes from it.

The server is `lora_core/fork_server.py`. A training on a GPU, one that gets secrets of the hub or a
proxy, and one that the server cannot start, gets a fresh interpreter, which costs it some seconds
of imports.
"""

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import structlog

from lora_core.child_protocol import MAX_REQUEST_BYTES, READY_MESSAGE, ForkRequest
from worker.child_confinement import child_confinement
from worker.spawn import (
    HUB_ENV,
    ChildProcess,
    ChildTask,
    ForkedProcess,
    child_arguments,
    child_environment,
    die_with_parent_command_prefix,
    fork_server_environment,
    spawn_child,
    wrap_process_and_write_pid_file,
)

PR_SET_CHILD_SUBREAPER = 36
FORK_SERVER_COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "lora_core.fork_server")
START_SECONDS = 120.0  # limit for the imports
_WAIT_SECONDS = 15.0  # a job waits for imports under way: its own, started later, would end later
REPLY_SECONDS = 3.0  # a fork takes some milliseconds
_RESTART_SECONDS = 1.0  # pause before a server that has ended is replaced
_MAX_RESTART_SECONDS = 600.0  # one that cannot start would keep a core busy with imports

log = structlog.get_logger(__name__)


class ForkServerSupervisor:
    """The fork server of a worker. It is replaced whenever it ends."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._server: _ServerProcess | None = None
        self._ready = False  # the server has imported everything

    @property
    def pid(self) -> int | None:
        """The process id of the server, if it accepts requests."""
        with self._changed:
            return self._server.pid if self._server is not None and self._ready else None

    def run_until_closed(self) -> None:
        """Keep a server running until `close`. The kernel kills it when the calling thread ends."""
        pause = _RESTART_SECONDS
        while not self._closed.is_set():
            try:
                if self._run_server():
                    pause = _RESTART_SECONDS
            except OSError as error:
                log.warning("cannot start the fork server", error=str(error))
            self._closed.wait(pause)
            pause = min(2 * pause, _MAX_RESTART_SECONDS)

    def close(self) -> None:
        """End the server and `run_until_closed`. The processes that it has forked go on."""
        with self._changed:
            self._closed.set()
            if self._server is not None:
                self._server.kill()

    def spawn(self, task: ChildTask) -> ChildProcess:
        """Start a process for `task`: a fork, or a fresh interpreter.

        The calling thread must wait for the process, as with `spawn_child`.
        """
        environment = child_environment(os.environ, task)
        has_secret = not HUB_ENV.isdisjoint(environment)  # it would stay in the server
        if task.device != "cpu" or has_secret or (server := self._wait_ready()) is None:
            return spawn_child(task)
        task.attempt_dir.reset_workspace()
        process = server.fork(task, environment)
        if process is None:
            log.warning("the fork server has not started the process; starting a fresh interpreter")
            return spawn_child(task)
        child = wrap_process_and_write_pid_file(process, task)
        process.unblock()
        return child

    def _run_server(self) -> bool:
        """Start a server and wait until it ends. Return whether it has been ready."""
        with self._changed:
            if self._closed.is_set():
                return False
            self._server = server = _ServerProcess()
        try:
            if was_ready := server.wait_until_ready_or_kill():
                self._set_ready(True)
            status = server.wait()
        finally:
            self._set_ready(False)
            server.close_connection()
        if not self._closed.is_set():
            log.warning("the fork server ended; starting another", status=status)
        return was_ready

    def _set_ready(self, ready: bool) -> None:
        with self._changed:
            self._ready = ready
            if not ready:
                self._server = None
            self._changed.notify_all()

    def _wait_ready(self) -> "_ServerProcess | None":
        """Return the server once it accepts requests; None if there is none, or it takes long."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._server is None, _WAIT_SECONDS)
            return self._server if self._ready else None


class _ServerProcess:
    """A running fork server and the socket to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # one request at a time, and none once it is closed
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [*die_with_parent_command_prefix(), *FORK_SERVER_COMMAND],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=fork_server_environment(os.environ),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready_or_kill(self) -> bool:
        """Wait for the imports. Return False, and kill it, if they fail or take too long."""
        self._connection.settimeout(START_SECONDS)
        if self._receive() == READY_MESSAGE:
            self._connection.settimeout(REPLY_SECONDS)
            return True
        self.kill()
        return False

    def fork(self, task: ChildTask, environment: dict[str, str]) -> ForkedProcess | None:
        """Return a process that waits for its start; None if the server cannot fork it.

        A server that does not answer is killed.
        """
        with self._lock, ExitStack() as ours, ExitStack() as theirs:
            stdin, child_stdin = _pipe(theirs, ours)
            child_stdout, stdout = _pipe(ours, theirs)
            log_fd = os.open(task.attempt_dir.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            theirs.callback(os.close, log_fd)
            request = ForkRequest(
                arguments=[task.command, *child_arguments(task)],
                directory=str(task.attempt_dir.workspace),
                environment=environment,
                parent=os.getpid(),
                confinement=child_confinement(task),
            )
            pid = self._send(request, [stdin, stdout, log_fd])
            if pid is None:
                return None
            ours.pop_all()
            return ForkedProcess(
                pid, stdin=os.fdopen(child_stdin, "wb", 0), stdout=os.fdopen(child_stdout, "rb", 0)
            )

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """Wait until it has ended; return its exit status, or minus the signal."""
        return self._process.wait()

    def close_connection(self) -> None:
        """Close the socket."""
        with self._lock:
            self._connection.close()

    def _send(self, request: ForkRequest, fds: list[int]) -> int | None:
        """Return the pid of the process for a request, which this process has adopted by then."""
        try:
            with _adopting_orphans():
                message = request.model_dump_json().encode()
                if len(message) > MAX_REQUEST_BYTES:
                    return None
                socket.send_fds(self._connection, [message], fds)
                if reply := self._receive():
                    return int(reply)
                self.kill()
                if reply := self._receive():  # it may just have forked
                    return int(reply)
                self._connection.close()  # a late answer must not be taken for that of another task
                return None
        except OSError:  # it has ended
            return None

    def _receive(self) -> bytes:
        """Return the next packet; an empty one at EOF or after the timeout."""
        try:
            return self._connection.recv(64)
        except (TimeoutError, ConnectionResetError):
            return b""


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Return a new pipe (read end, write end), whose ends these stacks close."""
    fds = os.pipe()
    for stack, fd in zip((reader, writer), fds, strict=True):
        stack.callback(os.close, fd)
    return fds


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Become the parent of descendants whose parent exits during the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
