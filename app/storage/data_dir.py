"""The data directory: checks that it is writable and has free space; process permissions."""

import os
import shutil
import tempfile

from app.errors import DataDirectoryUnusable, FreeDiskBelowReserve
from app.settings import Settings
from lora_core.process_settings import set_dumpable

MB = 10**6


def check_data_dir(settings: Settings) -> None:
    """Check that the data directory is writable.

    Raises `FreeDiskBelowReserve`, `DataDirectoryUnusable`.
    """
    try:
        check_free_space(settings, host="this host")
        tempfile.TemporaryFile(dir=settings.data_dir).close()
    except OSError as error:
        raise DataDirectoryUnusable(reason=error.strerror) from error


def check_free_space(settings: Settings, *, host: str) -> None:
    """Raise `FreeDiskBelowReserve` if less than the reserve is free."""
    free, reserve = shutil.disk_usage(settings.data_dir).free, settings.min_free_bytes
    if free < reserve:
        raise FreeDiskBelowReserve(host=host, free_mb=free // MB, reserve_mb=reserve // MB)


def make_process_private() -> None:
    """Keep the process's files, environment and memory private.

    New files are accessible to this user only, even if the operator opened the data directory to
    others.

    On Linux, other processes of the same user, such as a training process, can read neither the
    environment, which may contain passwords, nor the memory: root owns `/proc/PID/environ` and the
    like, and only root can attach a debugger. The process dumps no core. Programs that it starts
    are not affected.
    """
    os.umask(0o077)
    set_dumpable(False)
