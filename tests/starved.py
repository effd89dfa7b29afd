"""Refusals of the system that tell nothing about the files themselves."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
OPEN = 0o055  # to all others


@contextmanager
def unprivileged(*visible: Path) -> Iterator[None]:
    """Rights count, which they do not for root. Folders that are `visible` may be read."""
    for folder in {above for path in visible for above in (path, *path.parents)}:
        if (mode := folder.stat().st_mode) & OPEN != OPEN:
            folder.chmod(mode | OPEN)
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """No file can be opened any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
