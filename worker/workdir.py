"""The work directory: attempts in `jobs/<job>-a<attempt>/`, device locks in `devices/`.

Attempts of one job share no directory, so that one may start while another is being removed. What
a process writes is not trusted: it may make links to files that only the worker can reach.
"""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from app.errors import AppError, DataDirectoryUnusable
from app.settings import Settings
from app.storage.data_dir import check_free_space
from app.storage.store import check_regular_files

_DIRECTORY_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-a([1-9][0-9]*)")


class AttemptDir(NamedTuple):
    """Where one attempt works. Its process writes to `workspace`, and reads `spec` and `model`."""

    job_id: UUID
    attempt: int
    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def model(self) -> Path:
        """The model that the process starts from."""
        return self.path / f"model-{self.job_id}"  # no word that an error message may contain

    @property
    def workspace(self) -> Path:
        """The only directory here that the process may write to."""
        return self.path / "workspace"

    @property
    def out(self) -> Path:
        """The artifact that the process writes."""
        return self.workspace / "out"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that are not in the store yet."""
        return self.workspace / "checkpoints"

    @property
    def log(self) -> Path:
        """Standard error of the process."""
        return self.path / "child.log"

    @property
    def pid_file(self) -> Path:
        """Identifies the process group, for a worker that finds the directory without an owner."""
        return self.path / "child.json"

    @property
    def tmp(self) -> Path:
        """Temporary files of the process."""
        return self.workspace / "tmp"

    def reset_workspace(self) -> None:
        """Remove what an earlier process of this attempt has written."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        self.tmp.mkdir(parents=True)

    def move_out_of_workspace(self, *path: str) -> Path:
        """Move a directory out of the process's reach; return where it is now.

        Its parents are opened without following links, since the process may still replace them.
        Raises `OSError`, and `ArtifactCorrupt` if the directory contains anything but files and
        directories; nothing is kept of it then.
        """
        *parents, name = path
        out_of_reach = Path(tempfile.mkdtemp(prefix="moved-", dir=self.path))
        moved = out_of_reach / name
        try:
            with ExitStack() as opened:
                folder: int | None = None
                for parent in (str(self.workspace), *parents):
                    folder = os.open(parent, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                    opened.callback(os.close, folder)
                os.rename(name, moved, src_dir_fd=folder)
            check_regular_files(moved)
        except BaseException:
            shutil.rmtree(out_of_reach, ignore_errors=True)
            raise
        return moved

    def remove(self) -> None:
        """Remove the directory with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)


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
