"""Let readers read the kept files: their examples, and what once crashed them.

    python -m tests.fuzz.replay [READER ...]

Writes a JSON line for each file that still crashes its reader, then one with the number of files.
"""

import json
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.readers import (
    MEMORY_MB,
    READERS,
    TIMEOUT_SECONDS,
    kept_files,
    load_reader,
)


def main(names: Iterable[str]) -> int:
    readers = {name: load_reader(name) for name in names}
    _limit_memory()
    files = crashes = 0
    for name, read in readers.items():
        kept = list(kept_files(name))
        files += len(kept)
        for crash in find_crashes(read, kept):
            crashes += 1
            _say({"reader": name, **crash})
    _say({"readers": len(readers), "files": files, "crashes": crashes})
    return 1 if crashes else 0


def find_crashes(
    read: Callable[[bytes], None], files: Iterable[Path], seconds: int = TIMEOUT_SECONDS
) -> Iterator[dict[str, str]]:
    """Yield the files that the reader does not return from, with the error."""
    signal.signal(signal.SIGALRM, _raise_timeout)
    for file in files:
        signal.alarm(seconds)
        try:
            read(file.read_bytes())
        except BaseException as error:  # a panic of a Rust library is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{last.filename}:{last.lineno}"
            yield {"file": file.name, "error": f"{type(error).__name__}: {error}", "at": where}
        finally:
            signal.alarm(0)


def _raise_timeout(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("the reader is too slow")


def _limit_memory() -> None:
    """Limit what this process may allocate beyond what its libraries have mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or READERS))
