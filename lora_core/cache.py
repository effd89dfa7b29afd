"""The cache directory: the sample base, splits of samples, token ids, features, linear fits.

Entries are written atomically (`atomic_files.atomic_path`), so two processes may write the same
one at once.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

NAMED_FOLDERS = ("bases", "samples")
# The most bytes of the entries in each of the other folders. Their names are hashes of what they
# were computed from, so that they cannot be guessed.
FOLDER_LIMITS = {
    "tokens": 2_000_000_000,
    "features": 8 * 2**30,
    "splits": 500_000_000,
    "linear": 2**28,
    "cross-validation": 2**26,
    "learning-curves": 2**26,
}
TEXT_FOLDERS = ("tokens", "features")  # texts of users can be restored or guessed from these

_MAX_UNFINISHED_SECONDS = 86_400.0  # then the process that wrote an entry has been killed


def cache_dir() -> Path:
    """Return `LORAWORKS_CACHE`, or `~/.cache/loraworks`. It may not exist yet."""
    directory = os.environ.get("LORAWORKS_CACHE") or "~/.cache/loraworks"
    return Path(directory).expanduser().absolute()


def evict_least_recently_used(directory: Path, limit: int) -> None:
    """Delete the least recently used files of `directory` until it has at most `limit` bytes.

    Readers mark a file as used by touching it (`os.utime`). The newest file always stays. A
    confined process, which cannot list the directory, leaves this to its worker.
    """
    delete_unfinished(directory)
    total = 0
    for i, (_, size, path) in enumerate(sorted(_finished_files(directory), reverse=True)):
        total += size
        if i > 0 and total > limit:
            path.unlink(missing_ok=True)


def delete_derived_from_texts() -> None:
    """Delete the entries of `TEXT_FOLDERS`; processes that use them keep what they have opened."""
    for folder in TEXT_FOLDERS:
        delete_unfinished(cache_dir() / folder)
        for _, _, path in _finished_files(cache_dir() / folder):
            path.unlink(missing_ok=True)


def delete_unfinished(directory: Path) -> None:
    """Delete the files and directories that processes which have been killed left unfinished."""
    for path in directory.glob(".*"):
        with suppress(OSError):  # another process may be doing the same
            if time.time() - path.lstat().st_mtime > _MAX_UNFINISHED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _finished_files(directory: Path) -> list[tuple[int, int, Path]]:
    """Return when the entries were used last, in ns, their sizes in bytes, and their paths."""
    try:
        paths = list(directory.iterdir())
    except (FileNotFoundError, PermissionError):
        return []
    files = []
    for path in paths:
        with suppress(OSError):  # another process may be evicting too
            stat = path.lstat()
            if path.is_file() and not path.name.startswith("."):
                files.append((stat.st_mtime_ns, stat.st_size, path))
    return files
