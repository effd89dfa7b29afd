"""The directory for what can be made again: the sample base, token ids, features, linear fits.

Every entry appears whole (`disk.new_entry`), so that two processes may make the same one at once.
"""

import os
from contextlib import suppress
from pathlib import Path


def cache_dir() -> Path:
    """`LORAWORKS_CACHE`, else `~/.cache/loraworks`. It may not exist yet."""
    chosen = os.environ.get("LORAWORKS_CACHE") or "~/.cache/loraworks"
    return Path(chosen).expanduser().absolute()


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
