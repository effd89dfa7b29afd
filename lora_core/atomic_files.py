"""Files that appear whole and outlive a power cut, and the system's word for a full disk."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lora_core.errors.training import DiskFull

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_no_room(error: BaseException | None) -> bool:
    """Whether this is the system's word for a full disk, a full quota, or a limit of a file."""
    if isinstance(error, SafetensorError):  # it passes the number on in words only
        return f"os error {errno.ENOSPC}" in str(error)
    if isinstance(error, shutil.Error):  # so does this one, of each file of a folder
        return any(f"[Errno {number}]" in str(error) for number in _NO_ROOM)
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. A link is an `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(path: Path) -> None:
    """The same for all that lies below a folder, then for itself: a rename shall not outrun it."""
    for entry in path.rglob("*"):
        sync(entry)
    sync(path)


@contextmanager
def new_entry(final: Path) -> Iterator[Path]:
    """A path to write to, file or directory; it becomes `final` when the block ends well.

    If another process was faster, its entry stays. Raises `DiskFull`.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=".making-", dir=final.parent))
        try:
            unfinished = workshop / final.name
            yield unfinished
            sync_all(unfinished)
            try:
                unfinished.rename(final)
            except OSError:
                if not final.is_dir():  # a directory that is not empty is never replaced
                    raise
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        if is_no_room(error):
            raise DiskFull(what=f"the cache entry {final.name}") from error
        raise
