"""A child process with limits, for what callers sent: a hostile file harms the child alone."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio.from_thread
from anyio import NoEventLoopError

from lora_core.errors import LoraCoreError, adapter, artifact, base, data, export, spec, training

LOOK_SECONDS = 0.1  # how soon the child of a caller that left is killed

# Nothing of the service's own environment: it may hold secrets. One thread each, because every
# thread of a numeric library takes address space, which is what the memory limit counts.
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
}

# A child may name any cause, so the modules of all are loaded.
KINDS = (adapter, artifact, base, data, export, spec, training)
Kind = TypeVar("Kind", bound=LoraCoreError)


@dataclass(frozen=True)
class Limits:
    """What a child may use."""

    memory_mb: int
    seconds: float
    file_bytes: int  # largest file that it may write, its report included


@dataclass(frozen=True)
class Ended:
    """How a child ended, and what it said."""

    status: int | None  # None: it was stopped, because its time was over
    report: bytes
    complaints: str

    @property
    def out_of_time(self) -> bool:
        return self.status in (None, -signal.SIGXCPU)

    @property
    def out_of_memory(self) -> bool:
        # The last two: of Python's own C code, of the loader of libraries.
        words = ("MemoryError", "bad_alloc", "llocat", "SystemError", "failed to map segment")
        return self.status == -signal.SIGKILL or any(word in self.complaints for word in words)

    def cause(self, kind: type[Kind]) -> Kind:
        """The error that the child told, again as an object."""
        failed = json.loads(self.report.splitlines()[-1])
        for each in _subclasses(kind):
            if getattr(each, "code", None) == failed["code"]:
                return each(**failed["detail"])
        raise ValueError(f"a child named an unknown cause: {failed['code']}")


def run(arguments: Sequence[str], *, limits: Limits, folder: Path) -> Ended:
    """Run `python -m lora_core` with these arguments in `folder` and wait for its end.

    In a thread of a task that is cancelled the child is killed, and the cancellation raised.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            _command(arguments, limits),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            env=_ENVIRONMENT,
            cwd=folder,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = _wait(child, limits.seconds)
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        output.seek(0)
        log.seek(0)
        return Ended(status, output.read(), log.read().decode("utf-8", "replace"))


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its status; None: its time is over."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            return child.wait(min(left, LOOK_SECONDS))
        except subprocess.TimeoutExpired:
            with suppress(NoEventLoopError):  # not in a thread of a task
                anyio.from_thread.check_cancelled()
    return None


def _command(arguments: Sequence[str], limits: Limits) -> list[str]:
    python = [sys.executable, "-I", "-B", "-m"]
    figures = (limits.memory_mb * 2**20, math.ceil(limits.seconds), limits.file_bytes)
    return [*python, "app.sandbox.exec", *map(str, figures), *python, "lora_core", *arguments]


def _subclasses(kind: type[Kind]) -> Iterator[type[Kind]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)
