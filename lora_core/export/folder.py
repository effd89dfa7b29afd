"""A folder that is there in full or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_core.errors.export import OutExists


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `out` when the block ends well. Raises `OutExists`."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise OutExists(path=out)
    out.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=".making-", dir=out.parent))
    try:
        unfinished = workshop / "made"
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(out)  # takes the place of an empty folder, never of a full one
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
