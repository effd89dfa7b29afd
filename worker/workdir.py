"""The directories of attempts: `work/jobs/<job>-a<attempt>/`, fenced by their path.

Attempts of one job share no folder of their own: one may begin while another is cleared away.
"""

import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from app.errors import AppError, DataFolderUnusable
from app.settings import Settings
from app.storage.data_folder import check_room

_ATTEMPT = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-a([1-9][0-9]*)")


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
    return Place(job_id, attempt, settings.work_dir / "jobs" / f"{job_id}-a{attempt}")


def found(settings: Settings) -> Iterator[Place]:
    """Every directory of an attempt that is there."""
    for directory in (settings.work_dir / "jobs").glob("*"):
        if match := _ATTEMPT.fullmatch(directory.name):
            yield Place(UUID(match[1]), int(match[2]), directory)


def clear(directory: Path) -> None:
    """Remove an attempt's directory."""
    shutil.rmtree(directory, ignore_errors=True)


def check_writable(settings: Settings) -> None:
    """Raises `DataFolderUnusable` where no attempt could work."""
    folder = settings.work_dir / "jobs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataFolderUnusable(reason=f"{error.strerror}: {settings.work_dir}") from error


def trouble(settings: Settings) -> AppError | None:
    """Why no attempt could work here now."""
    try:
        check_writable(settings)
        check_room(settings, host=socket.gethostname())
    except AppError as error:
        return error
    return None
