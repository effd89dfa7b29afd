"""The directories of attempts: `work/jobs/<job>/a<attempt>/`, fenced by their path."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from app.settings import Settings
from worker.errors import NoRoom

_ATTEMPT = re.compile(r"a([1-9][0-9]*)")
MB = 2**20


class Place(NamedTuple):
    """Where one attempt works."""

    job_id: UUID
    attempt: int
    directory: Path

    @property
    def spec(self) -> Path:
        return self.directory / "spec.json"

    @property
    def out(self) -> Path:
        """Where the artifact is made."""
        return self.directory / "out"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are made, until they are in the store."""
        return self.directory / "checkpoints"

    @property
    def log(self) -> Path:
        """What the training process writes to standard error."""
        return self.directory / "child.log"

    @property
    def child(self) -> Path:
        """Names the process group, for the worker that finds it without an owner."""
        return self.directory / "child.json"

    @property
    def scratch(self) -> Path:
        """For temporary files of the process."""
        return self.directory / "tmp"


def place(settings: Settings, job_id: UUID, attempt: int) -> Place:
    """The directory of an attempt, which may not exist yet."""
    return Place(job_id, attempt, settings.work_dir / "jobs" / str(job_id) / f"a{attempt}")


def found(settings: Settings) -> Iterator[Place]:
    """Every directory of an attempt that is there."""
    for directory in (settings.work_dir / "jobs").glob("*/a*"):
        match = _ATTEMPT.fullmatch(directory.name)
        try:
            job_id = UUID(directory.parent.name)
        except ValueError:
            continue
        if match is not None:
            yield Place(job_id, int(match[1]), directory)


def clear(directory: Path) -> None:
    """Remove an attempt's directory, and the job's when it was the last."""
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.parent.rmdir()
    except OSError:
        return  # another attempt is still there, or all is gone


def check_room(settings: Settings) -> None:
    """Raises `NoRoom` when less than the reserve is free."""
    free = shutil.disk_usage(settings.data_dir).free
    if free < settings.min_free_bytes:
        raise NoRoom(free_mb=free // MB, reserve_mb=settings.min_free_bytes // MB)
