"""The cache directory: the sample base, splits of samples, token ids, features, linear fits.

Entries are written atomically (`atomic_files.atomic_path`), so two processes may write the same
one at once.
"""

import os
from contextlib import suppress
from pathlib import Path


def cache_dir() -> Path:
    """Return `LORAWORKS_CACHE`, or `~/.cache/loraworks`. It may not exist yet."""
    directory = os.environ.get("LORAWORKS_CACHE") or "~/.cache/loraworks"
    return Path(directory).expanduser().absolute()


def evict_least_recently_used(directory: Path, limit: int) -> None:
    """Delete the least recently used files of `directory` until it has at most `limit` bytes.

    Readers mark a file as used by touching it (`os.utime`). The newest file always stays.
    """
    files = []
    for path in directory.iterdir():
        with suppress(FileNotFoundError):  # another process may be evicting too
            if path.is_file():
                stat = path.stat()
                files.append((stat.st_mtime_ns, stat.st_size, path))
    total = 0
    for i, (_, size, path) in enumerate(sorted(files, reverse=True)):
        total += size
        if i > 0 and total > limit:
            path.unlink(missing_ok=True)
