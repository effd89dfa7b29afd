"""Run `lora_core` on uploaded files in a child process, so that a malicious file harms only it."""

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
from typing import IO, TypeVar

import anyio.from_thread
from anyio import NoEventLoopError

from lora_core.cache import cache_dir
from lora_core.confinement import Confinement
from lora_core.confinement_paths import READABLE, WRITABLE, code_directories, importable_directories
from lora_core.errors import (
    LoraCoreError,
    adapter,
    artifact,
    base_model,
    data,
    export,
    spec,
    training,
)

POLL_SECONDS = 0.1  # how often to check whether the caller was cancelled

# Nothing is inherited from the service's environment, which may contain secrets. One thread per
# library, because each thread uses address space, which the memory limit counts.
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",  # the tokenizer
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "JOBLIB_MULTIPROCESSING": "0",  # it would try to make a semaphore, which is denied
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
}

# A child may report any error, so all error modules must be loaded.
_ERROR_MODULES = (adapter, artifact, base_model, data, export, spec, training)
_ErrorT = TypeVar("_ErrorT", bound=LoraCoreError)


@dataclass(frozen=True)
class SandboxLimits:
    """Resource limits of a child process."""

    memory_mb: int
    seconds: float
    file_bytes: int  # maximum size of a file that it writes, including its stdout


@dataclass(frozen=True)
class SandboxResult:
    """Exit code and output of a child process."""

    returncode: int | None  # None: it was killed after the time limit
    stdout: bytes
    stderr: str

    @property
    def timed_out(self) -> bool:
        return self.returncode in (None, -signal.SIGXCPU)

    @property
    def out_of_memory(self) -> bool:
        # The last two come from Python's C code and from the dynamic loader.
        phrases = ("MemoryError", "bad_alloc", "llocat", "SystemError", "failed to map segment")
        return self.returncode == -signal.SIGKILL or any(each in self.stderr for each in phrases)

    def parse_error(self, base: type[_ErrorT]) -> _ErrorT:
        """Return the error that the child reported, as an instance of a subclass of `base`."""
        reported = json.loads(self.stdout.splitlines()[-1])
        for error_class in _subclasses(base):
            if getattr(error_class, "code", None) == reported["code"]:
                return error_class(**reported["detail"])
        raise ValueError(f"the child process reported an unknown error: {reported['code']}")


def run_lora_core_sandboxed(
    arguments: Sequence[str],
    *,
    limits: SandboxLimits,
    readable: Sequence[Path],
    writable: Sequence[Path] = (),
    stdin: IO[bytes] | None = None,
) -> SandboxResult:
    """Run `python -m lora_core` with these arguments, and wait for it.

    Where the kernel has Landlock, it reaches no files but these, which are files or directories,
    its empty working directory, and the samples. `stdin` is a file that the child reads, by default
    none.

    If this runs in a worker thread of a task that is cancelled, kill the child and raise the
    cancellation.
    """
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as log,
        tempfile.TemporaryDirectory() as cwd,
    ):
        confinement = _confinement(readable, [Path(cwd), *writable])
        child = subprocess.Popen(
            _command(arguments, limits, confinement),
            stdin=stdin or subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            env=_ENVIRONMENT | {"LORAWORKS_CACHE": str(cache_dir()), "TMPDIR": cwd},
            cwd=cwd,
            start_new_session=True,
        )
        returncode: int | None = None
        try:
            returncode = _wait(child, limits.seconds)
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        output.seek(0)
        log.seek(0)
        return SandboxResult(returncode, output.read(), log.read().decode("utf-8", "replace"))


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return its exit code, or None after the time limit."""
    deadline = time.monotonic() + seconds
    while (seconds_left := deadline - time.monotonic()) > 0:
        try:
            return child.wait(min(seconds_left, POLL_SECONDS))
        except subprocess.TimeoutExpired:
            with suppress(NoEventLoopError):  # not in a worker thread of a task
                anyio.from_thread.check_cancelled()
    return None


def _confinement(readable: Sequence[Path], writable: Sequence[Path]) -> Confinement:
    splits = cache_dir() / "splits"
    with suppress(OSError):  # the child reports it, if it needs them
        splits.mkdir(parents=True, exist_ok=True)
    samples = cache_dir() / "samples"
    return Confinement(
        readable=(*READABLE, *code_directories(), *map(str, (*readable, samples))),
        listable=importable_directories(),
        writable=(*WRITABLE, *map(str, writable)),
        unlisted=(str(splits),),
        devices=(),
        network=False,
    )


def _command(
    arguments: Sequence[str], limits: SandboxLimits, confinement: Confinement
) -> list[str]:
    python = [sys.executable, "-I", "-B", "-m"]
    limit_args = (limits.memory_mb * 2**20, math.ceil(limits.seconds), limits.file_bytes)
    return [
        *python,
        "app.sandbox.limit_and_exec",
        *map(str, limit_args),
        json.dumps(confinement),
        *python,
        "lora_core",
        *arguments,
    ]


def _subclasses(base: type[_ErrorT]) -> Iterator[type[_ErrorT]]:
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
