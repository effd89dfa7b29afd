"""Parse an uploaded file in a child with limits, so that a hostile one harms nothing else."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.datasets.errors import Unreadable
from app.settings import Settings
from lora_core import exit_codes
from lora_core.errors import DataError, DataTooLarge

_OUTPUT_BYTES = 4_000_000  # of the report, and of anything else the child writes
_LOG = logging.getLogger(__name__)

# Nothing of the service's own environment: it may hold secrets. One thread each, because every
# thread of a numeric library takes address space, which is what the memory limit counts.
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
}


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. `label` None: there are no labels."""

    text: str
    label: str | None
    split: str | None


def inspect(file: Path, *, filename: str, columns: Columns, settings: Settings) -> dict[str, Any]:
    """What is in the file: rows, labels, parts, duplicates.

    Raises the `DataError` that the parser found, with row numbers; `DataTooLarge` when memory or
    time ran out; `Unreadable` when the parser crashed. `filename` is the caller's name of the file.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            _command(file, columns, settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            env=_ENVIRONMENT,
            cwd=file.parent,
            start_new_session=True,
        )
        try:
            status = child.wait(settings.inspect_seconds)
        except subprocess.TimeoutExpired as error:
            raise _too_slow(filename, settings) from error
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        output.seek(0)
        log.seek(0)
        report, complaints = output.read(), log.read().decode("utf-8", "replace")
    if status == 0:
        return dict(json.loads(report))
    if status == exit_codes.FAILED:
        raise _named(report, filename)
    if status == -signal.SIGXCPU:
        raise _too_slow(filename, settings)
    if status == -signal.SIGKILL or _no_memory(complaints):
        limit = f"{settings.inspect_memory_mb} MB"
        raise DataTooLarge(file=filename, what="the memory needed to read it", limit=limit)
    _LOG.error("inspection ended with status %d: %s", status, complaints[-2000:])
    raise Unreadable(file=filename)


def _command(file: Path, columns: Columns, settings: Settings) -> list[str]:
    python = [sys.executable, "-I", "-B", "-m"]
    limits = [
        settings.inspect_memory_mb * 2**20,
        math.ceil(settings.inspect_seconds),
        _OUTPUT_BYTES,
    ]
    wanted = [f"--text-column={columns.text}"]
    wanted.append("--texts" if columns.label is None else f"--label-column={columns.label}")
    if columns.split is not None:
        wanted.append(f"--split-column={columns.split}")
    inspect = [*python, "lora_core", "inspect", str(file), *wanted]
    return [*python, "app.datasets.limited", *map(str, limits), *inspect]


def _named(report: bytes, filename: str) -> DataError:
    """The error that the child told, again as an object."""
    failed = json.loads(report.splitlines()[-1])
    for kind in _subclasses(DataError):
        if kind.code == failed["code"]:
            detail = dict(failed["detail"])
            if "file" in detail:
                detail["file"] = filename  # the child knows only the place on the disk
            return kind(**detail)
    raise ValueError(f"the parser named an unknown cause: {failed['code']}")


def _subclasses(kind: type[DataError]) -> Iterator[type[DataError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _too_slow(filename: str, settings: Settings) -> DataTooLarge:
    limit = f"{settings.inspect_seconds:g} s"
    return DataTooLarge(file=filename, what="the time needed to read it", limit=limit)


def _no_memory(complaints: str) -> bool:
    """Whether these last words are of a process that was given no more memory."""
    words = ("MemoryError", "bad_alloc", "llocat", "SystemError")  # the last: Python's own C code
    return any(word in complaints for word in words)
