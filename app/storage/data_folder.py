"""Whether the data folder can be written, and its disk has room."""

import shutil
import tempfile

from app.errors import DataFolderUnusable, NoRoom
from app.settings import Settings

MB = 10**6


def check(settings: Settings) -> None:
    """Raises `NoRoom`, `DataFolderUnusable`."""
    try:
        check_room(settings, host="this machine")
        tempfile.TemporaryFile(dir=settings.data_dir).close()
    except OSError as error:
        raise DataFolderUnusable(reason=error.strerror) from error


def check_room(settings: Settings, *, host: str) -> None:
    """Raises `NoRoom` when less than the reserve is free."""
    free, reserve = shutil.disk_usage(settings.data_dir).free, settings.min_free_bytes
    if free < reserve:
        raise NoRoom(host=host, free_mb=free // MB, reserve_mb=reserve // MB)
