"""Operating system errors that do not depend on the files."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
OPEN = 0o055  # to all others


@contextmanager
def unprivileged(*visible: Path) -> Iterator[None]:
    """Enforce permissions, which root ignores. `visible` folders may be read."""
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
    """No file can be opened (EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
