"""The training process: how it is started, heard and ended."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from app.queue.fencing import Claimed
from app.queue.transitions import ExitStatus
from lora_core.events import Event, parse_event
from worker import process_identity
from worker.workdir import Place

LONGEST_LINE = 16 * 2**20  # bytes
CHUNK = 2**20
PROGRAM: tuple[str, ...] = (sys.executable, "-P", "-m", "lora_core")
TETHER = Path(__file__).with_name("tether.py")

# What a training process may see of the environment. A list of what is allowed: the database URL,
# the pepper, tokens of the hub or of a cloud are simply not on it.
_NAMES = {
    *("PATH", "HOME", "USER", "LANG", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH"),
    *("LORAWORKS_CACHE", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"),
    *("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "LORAWORKS_FAULT"),
}
# Only for what downloads from the hub: the address of a proxy often holds a password.
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OPENBLAS_")  # the last one picks kernels, hence bits

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Order:
    """What is to be done, where, and with what."""

    command: str  # "train" or "predict-file"
    place: Place
    resume: Path | None  # a checkpoint to go on from
    checkpoint_seconds: float
    threads: int
    device: str  # "cpu" or "cuda:1": the only one that the process sees
    lock_fd: int | None = None  # locks the device as long as the process lives
    from_hub: bool = False  # the process downloads its base or its data
    stays: bool = False  # the process waits for another order when this one is done

    @property
    def process(self) -> tuple[object, ...]:
        """What a process was made for: it can take other orders of the same kind."""
        return self.command, self.threads, self.device, self.lock_fd, self.from_hub


def start(order: Order) -> "Child":
    """Run `PROGRAM COMMAND SPEC …`, the leader of a session of its own.

    The calling thread must wait for the child: when the thread ends, the kernel kills it.
    """
    place = order.place
    place.scratch.mkdir(exist_ok=True)
    tether = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid())]
    more = ["--lifeline", *(["--more"] if order.stays else [])]
    with place.log.open("ab") as errors:
        process = subprocess.Popen(
            [*tether, *PROGRAM, order.command, *_arguments(order), *more],
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=place.directory,
            env=child_environment(os.environ, order),
            start_new_session=True,
            pass_fds=() if order.lock_fd is None else (order.lock_fd,),
        )
    child = Child(process, stays=order.stays)
    try:
        child.mark(place)
    except BaseException:
        child.wait()
        raise
    return child


class Child:
    """A training process and the pipe that it writes its events to."""

    def __init__(self, process: subprocess.Popen[bytes], *, stays: bool = False) -> None:
        self.stays = stays
        if process.stdout is None:
            raise ValueError("the process needs a pipe for its events")
        self._process = process
        self._pipe = process.stdout
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._open = True
        self._rest = b""

    def mark(self, place: Place) -> None:
        """Name the process in the directory of its attempt, for whoever finds it there."""
        known = process_identity.process(self._process.pid)  # not reaped yet, so it is there
        place.child.write_text(json.dumps(known), encoding="utf-8")

    def take(self, order: Order) -> bool:
        """Give it another order, once it has finished one. False: it is gone."""
        order.place.scratch.mkdir(exist_ok=True)
        if self._process.stdin is None or self._has_left():
            return False
        self.mark(order.place)
        line = json.dumps([*_arguments(order), "--place", str(order.place.directory)])
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def read(self, timeout: float) -> list[Event] | None:
        """What it told within the time; `None` once it has left and was heard to the end."""
        left = self._has_left()
        if left:
            self.kill()
        chunk = self._receive(timeout)
        if left and not chunk:  # not only at its end: a stranger may hold the pipe open for ever
            return None
        return self._decode(chunk)

    def stop(self) -> None:
        """Ask it to leave. SIGTERM to the process alone: it ends its own helpers."""
        self._tell(signal.SIGTERM)

    def abort(self) -> None:
        """Make it write its stacks to the log and die: Python's answer to SIGABRT."""
        self._tell(signal.SIGABRT)

    def kill(self) -> None:
        """End it and everything it started: SIGKILL to the group, whose number is ours as long as
        the process was not waited for.
        """
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> ExitStatus:
        """How it left. Called last; kills what is left of its group."""
        self.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._pipe):
            if pipe is not None:
                pipe.close()
        return ExitStatus(signal=-code) if code < 0 else ExitStatus(code=code)

    def _tell(self, number: int) -> None:
        """Not through `Popen`, which would reap one that has just left."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def _has_left(self) -> bool:
        """Without reaping it, so that the group keeps its number."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, how) is not None

    def _receive(self, timeout: float) -> bytes:
        if not self._open:
            time.sleep(min(timeout, 0.05))
            return b""
        if not self._poll.poll(timeout * 1000):
            return b""
        chunk = os.read(self._pipe.fileno(), CHUNK)
        self._open = bool(chunk)
        return chunk

    def _decode(self, chunk: bytes) -> list[Event]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._rest = b""
        events = []
        for line in lines:
            try:
                events.append(parse_event(line))
            except ValidationError:
                log.warning("not an event", pid=self._process.pid, line=line[:200])
        return events


def _arguments(order: Order) -> list[str]:
    place = order.place
    run = [str(place.spec), "--out", str(place.out)]
    save = ["--checkpoints", str(place.checkpoints)]
    often = ["--checkpoint-seconds", str(order.checkpoint_seconds)]
    resume = [] if order.resume is None else ["--resume", str(order.resume)]
    return [*run, *save, *often, *resume]


def child_environment(environ: Mapping[str, str], order: Order) -> dict[str, str]:
    """What a training process gets: enough to find programs and caches, no secret."""
    names = _NAMES | _PROXIES if order.from_hub else _NAMES
    allowed = {
        name: value
        for name, value in environ.items()
        if name in names or name.startswith(_PREFIXES)
    }
    return allowed | {
        "OMP_NUM_THREADS": str(order.threads),
        "RAYON_NUM_THREADS": str(order.threads),  # the tokeniser
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # numbers as nvidia-smi and `devices` give them
        "CUDA_VISIBLE_DEVICES": order.device.partition(":")[2],
        "PYTHONFAULTHANDLER": "1",
        "TMPDIR": str(order.place.scratch),
    }


# MERGED worker.spawn
# A training process from one cell of a sweep to the next: most of a short run is its start.


class Warm:
    """The process of one thread, which alone may use it: it dies with the thread that started it.

    Only cells of sweeps share one: other jobs have theirs to themselves.
    """

    def __init__(self) -> None:
        self._child: Child | None = None
        self._made_for: tuple[object, ...] = ()

    def __bool__(self) -> bool:
        """Whether a process waits for an order."""
        return self._child is not None

    @staticmethod
    def suits(claimed: Claimed) -> bool:
        """Whether a job may share its process."""
        return claimed.sweep_id is not None

    def start(self, order: Order) -> Child:
        """A process that does this: the one that waits, if it was made for the like, or a new one.

        What `launch.start` says of the calling thread holds for both.
        """
        child, self._child = self._child, None
        if child is not None:
            try:
                if order.stays and order.process == self._made_for and child.take(order):
                    return child
            except BaseException:
                child.wait()
                raise
            child.wait()
        return start(order)

    def keep(self, child: Child, order: Order) -> None:
        """It has finished its order, and waits for another one."""
        self._child, self._made_for = child, order.process
        # From now on this is not what runs there, and nobody may kill it for being left over.
        order.place.child.unlink(missing_ok=True)

    def close(self) -> None:
        """End the process that waits."""
        if self._child is not None:
            self._child.wait()
            self._child = None
