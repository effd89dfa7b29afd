"""Files that appear atomically and as a whole, JSON files, and full disks."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lora_core.errors.export import OutputExists
from lora_core.errors.training import DiskFull

_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error means a full disk, an exceeded quota, or a file size limit."""
    if isinstance(error, SafetensorError):  # which has the error number only in its message
        return any(f"(os error {number})" in str(error) for number in _DISK_FULL_ERRNOS)
    if isinstance(error, shutil.Error):  # as has this one, for each file of a directory
        return any(f"[Errno {number}]" in str(error) for number in _DISK_FULL_ERRNOS)
    return isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS


def check_new_directory(path: Path) -> None:
    """Raise `OutputExists` unless the directory is missing or empty."""
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise OutputExists(path=path)


def write_indented_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented so that people can read it."""
    path.write_text(
        json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False), encoding="utf-8"
    )


def fsync(path: Path) -> None:
    """Flush a file or the entries of a directory to disk. Raises `OSError` for a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Flush everything below a directory, then the directory, before it is renamed."""
    for entry in path.rglob("*"):
        fsync(entry)
    fsync(path)


@contextmanager
def atomic_path(final: Path, *, what: str | None = None) -> Iterator[Path]:
    """Yield a path for a file or directory, which is renamed to `final` if the block succeeds.

    It is hidden, ends with the name of `final`, and is next to it: a confined process cannot move
    between directories before Linux 5.19. If another process was faster, its directory stays; its
    file is replaced. After a power failure, `final` is complete or missing.

    Raises `DiskFull`, which says `what` was written, by default the cache entry.
    """
    entry = final.with_name(f".making-{secrets.token_hex(8)}-{final.name}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield entry
            fsync_tree(entry)
            try:
                entry.rename(final)
            except OSError:
                if not final.is_dir():  # a directory that is not empty cannot be replaced
                    raise
        finally:
            _remove(entry)
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFull(what=what or f"the cache entry {final.name}") from error
        raise


def _remove(entry: Path) -> None:
    """Remove a file or a directory, if it is there and that is possible."""
    shutil.rmtree(entry, ignore_errors=True)
    with suppress(OSError):  # it was a directory, or has been renamed
        entry.unlink()
