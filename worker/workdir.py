"""The work directory: attempts in `jobs/<job>-a<attempt>/`, device locks in `devices/`.

Attempts of one job share no directory, so that one may start while another is being removed.
"""

import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from app.errors import AppError, DataDirectoryUnusable
from app.settings import Settings
from app.storage.data_dir import check_free_space

_DIRECTORY_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-a([1-9][0-9]*)")


class AttemptDir(NamedTuple):
    """Where one attempt works."""

    job_id: UUID
    attempt: int
    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def model(self) -> Path:
        """The model that the process starts from, if its base is stored elsewhere."""
        return self.path / f"model-{self.job_id}"  # no word that an error message may contain

    @property
    def out(self) -> Path:
        """The artifact that the process writes."""
        return self.path / "out"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that are not in the store yet."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """Standard error of the training process."""
        return self.path / "child.log"

    @property
    def pid_file(self) -> Path:
        """Identifies the process group, for a worker that finds the directory without an owner."""
        return self.path / "child.json"

    @property
    def tmp(self) -> Path:
        """Temporary files of the process."""
        return self.path / "tmp"


def device_lock_dir(settings: Settings) -> Path:
    """Return the directory of the files that mark a GPU as used by a worker of this host."""
    return settings.work_dir / "devices"


def _jobs_dir(settings: Settings) -> Path:
    return settings.work_dir / "jobs"


def attempt_dir(settings: Settings, job_id: UUID, attempt: int) -> AttemptDir:
    """Return the directory of an attempt, which may not exist yet."""
    return AttemptDir(job_id, attempt, _jobs_dir(settings) / f"{job_id}-a{attempt}")


def list_attempt_dirs(settings: Settings) -> Iterator[AttemptDir]:
    """Yield every existing attempt directory."""
    for directory in _jobs_dir(settings).glob("*"):
        if match := _DIRECTORY_NAME.fullmatch(directory.name):
            yield AttemptDir(UUID(match[1]), int(match[2]), directory)


def remove_attempt_dir(directory: Path) -> None:
    """Remove an attempt's directory."""
    shutil.rmtree(directory, ignore_errors=True)


def check_writable(settings: Settings) -> None:
    """Raise `DataDirectoryUnusable` if attempts cannot write to the work directory."""
    folder = _jobs_dir(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataDirectoryUnusable(reason=f"{error.strerror}: {settings.work_dir}") from error


def find_disk_problem(settings: Settings) -> AppError | None:
    """Return why no attempt could run here now, or None."""
    try:
        check_writable(settings)
        check_free_space(settings, host=socket.gethostname())
    except AppError as error:
        return error
    return None
