"""The training process: starting it, reading its events, stopping it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog
from pydantic import ValidationError

from app.queue.transitions import ProcessExitStatus
from lora_core import confinement
from lora_core.child_protocol import EXIT_WITH_PARENT_OPTION
from lora_core.events import Event, parse_event
from lora_core.hf_hub import TOKEN_VARIABLES
from worker import process_identity
from worker.child_confinement import child_confinement
from worker.workdir import AttemptDir

MAX_LINE_BYTES = 16 * 2**20
CHUNK_BYTES = 2**20
LORA_CORE_COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "lora_core")
DIE_WITH_PARENT_EXEC = Path(__file__).with_name("die_with_parent_exec.py")

# Environment variables that a training process may see. This is an allowlist: the database URL, the
# pepper, and hub or cloud tokens are not on it.
_ALLOWED_ENV = {
    "HF_DATASETS_CACHE",
    "HF_DATASETS_OFFLINE",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "LORAWORKS_CACHE",
    "LORAWORKS_FAULT",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_TF32_OVERRIDE",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
    "XDG_CACHE_HOME",
}
# Only for processes that download from the hub: its token, and proxy URLs, which often contain a
# password. The process removes the token from its environment when it starts.
HUB_ENV = {
    *TOKEN_VARIABLES,
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("all_proxy", "http_proxy", "https_proxy", "no_proxy"),
}
# joblib, which scikit-learn imports, would try to make a semaphore, which a confinement denies.
_NO_JOBLIB_PROCESSES = {"JOBLIB_MULTIPROCESSING": "0"}
# OPENBLAS_ selects the kernels, and so the exact bits of the result.
_ALLOWED_ENV_PREFIXES = ("LC_", "CUDA_", "OPENBLAS_")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ChildTask:
    """What a training process has to do, where, and with which resources."""

    command: str  # "train", "predict-file" or "embed-file"
    attempt_dir: AttemptDir
    resume_from: Path | None  # checkpoint to resume from
    checkpoint_seconds: float  # between two checkpoints
    threads: int
    device: str  # "cpu" or "cuda:1": the only device visible to the process
    lock_fd: int | None = None  # locks the device for as long as the process lives
    from_hub: bool = False  # the process downloads its base or its data
    inputs: Sequence[Path] = ()  # what it reads outside its directory


def spawn_child(task: ChildTask) -> "ChildProcess":
    """Run `LORA_CORE_COMMAND COMMAND SPEC …` as the leader of its own session.

    The calling thread must wait for the child: the kernel kills the child when the thread ends.
    """
    attempt_dir = task.attempt_dir
    attempt_dir.reset_workspace()
    with attempt_dir.log.open("ab") as stderr:
        process = subprocess.Popen(
            [
                *die_with_parent_command_prefix(),
                *_confinement_command_prefix(task),
                *LORA_CORE_COMMAND,
                task.command,
                *child_arguments(task),
            ],
            stdin=subprocess.PIPE,  # the child exits at its end, so it cannot outlive us
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=attempt_dir.workspace,
            env=child_environment(os.environ, task),
            start_new_session=True,
            pass_fds=() if task.lock_fd is None else (task.lock_fd,),
        )
    return wrap_process_and_write_pid_file(process, task)


def die_with_parent_command_prefix() -> list[str]:
    """Return the start of a command line, so that the process ends with the calling thread."""
    return [sys.executable, "-I", "-S", str(DIE_WITH_PARENT_EXEC), str(os.getpid())]


def _confinement_command_prefix(task: ChildTask) -> list[str]:
    """Return what comes before a command, so that it runs confined."""
    limits = json.dumps(child_confinement(task))
    return [sys.executable, "-I", "-S", confinement.__file__, limits]


class ForkedProcess:
    """A process that a fork server has forked: a child of this process, which has adopted it.

    It has what `ChildProcess` uses of `Popen`.
    """

    def __init__(self, pid: int, *, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None

    def unblock(self) -> None:
        """Let it run. Until then it waits, and ends if the pipe is closed."""
        with suppress(BrokenPipeError):  # it has been killed
            self.stdin.write(b"\n")

    def wait(self) -> int:
        """Wait until it has exited; return its exit status, or minus the signal."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def wrap_process_and_write_pid_file(
    process: subprocess.Popen[bytes] | ForkedProcess, task: ChildTask
) -> "ChildProcess":
    """Return the child process, once the file that identifies it is written."""
    child = ChildProcess(process)
    try:
        child.write_pid_file(task.attempt_dir)
    except BaseException:
        child.kill_and_wait()
        raise
    return child


class ChildProcess:
    """A training process and the pipe to which it writes its events."""

    def __init__(self, process: subprocess.Popen[bytes] | ForkedProcess) -> None:
        if process.stdout is None:
            raise ValueError("the process needs a pipe for its events")
        self._process = process
        self._pipe = process.stdout
        self._poller = select.poll()
        self._poller.register(self._pipe, select.POLLIN)
        self._pipe_open = True
        self._partial_line = b""

    def write_pid_file(self, attempt_dir: AttemptDir) -> None:
        """Record the process in its attempt's directory, for the cleanup by a later worker."""
        identity = process_identity.identify(self._process.pid)  # not reaped yet, so it exists
        attempt_dir.pid_file.write_text(json.dumps(identity), encoding="utf-8")

    def poll_events(self, timeout: float) -> list[Event] | None:
        """Return the events received within `timeout`; `None` once it has exited and all are read.

        Waiting for the end of the pipe would not do: a grandchild may keep it open forever.
        """
        exited = self._has_exited()
        if exited:
            self.kill()
        chunk = self._read_chunk(timeout)
        if exited and not chunk:
            return None
        return self._parse_lines(chunk)

    def terminate(self) -> None:
        """Send SIGTERM to the process alone: it stops its own children."""
        self._send_signal(signal.SIGTERM)

    def abort_with_traceback(self) -> None:
        """Send SIGABRT: faulthandler writes the stack traces to the log, then the process dies."""
        self._send_signal(signal.SIGABRT)

    def kill(self) -> None:
        """Send SIGKILL to the process group. Its id is ours until the process is waited for."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill_and_wait(self) -> ProcessExitStatus:
        """Kill what is left of the group and return how the process exited. Call this last."""
        self.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._pipe):
            if pipe is not None:
                pipe.close()
        return ProcessExitStatus(signal=-code) if code < 0 else ProcessExitStatus(code=code)

    def _send_signal(self, signum: int) -> None:
        """Send a signal without `Popen`, which would reap a process that has just exited."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signum)

    def _has_exited(self) -> bool:
        """Return whether it has exited, without reaping it, so that the group keeps its id."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, options) is not None

    def _read_chunk(self, timeout: float) -> bytes:
        if not self._pipe_open:
            time.sleep(min(timeout, 0.05))
            return b""
        if not self._poller.poll(timeout * 1000):
            return b""
        chunk = os.read(self._pipe.fileno(), CHUNK_BYTES)
        self._pipe_open = bool(chunk)
        return chunk

    def _parse_lines(self, chunk: bytes) -> list[Event]:
        *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
        if len(self._partial_line) > MAX_LINE_BYTES:
            self._partial_line = b""
        events = []
        for line in lines:
            try:
                events.append(parse_event(line))
            except ValidationError:
                log.warning(
                    "ignored a line that is not an event", pid=self._process.pid, line=line[:200]
                )
        return events


def child_arguments(task: ChildTask) -> list[str]:
    """Return the arguments of the command of a task."""
    attempt_dir = task.attempt_dir
    arguments = [
        str(attempt_dir.spec),
        "--out",
        str(attempt_dir.out),
        "--checkpoints",
        str(attempt_dir.checkpoints),
        "--checkpoint-seconds",
        str(task.checkpoint_seconds),
        EXIT_WITH_PARENT_OPTION,
    ]
    if task.resume_from is not None:
        arguments += ["--resume", str(task.resume_from)]
    return arguments


def child_environment(environ: Mapping[str, str], task: ChildTask) -> dict[str, str]:
    """Return the environment of a training process: programs and caches, and only of one that
    downloads from the hub also `HUB_ENV`."""
    names = _ALLOWED_ENV | HUB_ENV if task.from_hub else _ALLOWED_ENV
    return _select(environ, names) | {
        "OMP_NUM_THREADS": str(task.threads),
        "RAYON_NUM_THREADS": str(task.threads),  # the tokenizer
        **_NO_JOBLIB_PROCESSES,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # number GPUs as nvidia-smi and `devices` do
        "CUDA_VISIBLE_DEVICES": task.device.partition(":")[2],
        "PYTHONFAULTHANDLER": "1",
        "TMPDIR": str(task.attempt_dir.tmp),
    }


def fork_server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a fork server: that of a training without its own variables.

    No library may start a thread when it is loaded. Each process sets its own number of threads.
    """
    return _select(environ, _ALLOWED_ENV) | {
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        **_NO_JOBLIB_PROCESSES,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONFAULTHANDLER": "1",
    }


def _select(environ: Mapping[str, str], names: Set[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name in names or name.startswith(_ALLOWED_ENV_PREFIXES)
    }
