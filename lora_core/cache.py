"""The directory for what can be made again: the sample base, token ids, fits of the linear rival.

Every entry appears whole, by a rename, so that two processes may make the same one at once.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from lora_core.errors import DiskFull


def is_no_room(error: BaseException | None) -> bool:
    """Whether this is the system's word for a full disk or quota."""
    if isinstance(error, SafetensorError):  # it passes the number on in words only
        return f"os error {errno.ENOSPC}" in str(error)
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def cache_dir() -> Path:
    """`LORAWORKS_CACHE`, else `~/.cache/loraworks`. It may not exist yet."""
    chosen = os.environ.get("LORAWORKS_CACHE") or "~/.cache/loraworks"
    return Path(chosen).expanduser().absolute()


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
            _sync(unfinished)
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


def _sync(path: Path) -> None:
    """Put the bytes on the disk before the name: a power cut leaves no half entry."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def keep_below(directory: Path, limit: int) -> None:
    """Delete the files used longest ago until those of `directory` have at most `limit` bytes.

    Readers mark use by touching the file (`os.utime`). The newest file always stays.
    """
    files = []
    for path in directory.iterdir():
        with suppress(FileNotFoundError):  # another process is cleaning as well
            if path.is_file():
                facts = path.stat()
                files.append((facts.st_mtime_ns, facts.st_size, path))
    total = 0
    for i, (_, size, path) in enumerate(sorted(files, reverse=True)):
        total += size
        if i > 0 and total > limit:
            path.unlink(missing_ok=True)
