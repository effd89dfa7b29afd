"""The archive of an artifact to a folder: plain files with plain names, and nothing else."""

import re
import shutil
import tarfile
from pathlib import Path

from lora_core.errors.artifact import ArchiveBroken, ArchiveUnsafe

FILES = 100  # far more than an artifact has
ENDINGS = (".json", ".jsonl", ".safetensors")
_PLACE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99}/){1,2}[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack a tar file into the empty `directory`; returns the one folder in it.

    It must be uncompressed, so that nothing in it is larger than it looks. Raises `ArchiveBroken`,
    `ArchiveUnsafe`.
    """
    folders: set[str] = set()
    try:
        with tarfile.open(archive, "r:", errorlevel=2) as tar:
            for count, entry in enumerate(tar):
                if entry.isdir():
                    continue
                folder = _checked(entry, count)
                folders.add(folder)
                _write(tar, entry, directory / entry.name)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise ArchiveBroken(problem=str(error) or type(error).__name__) from error
    if len(folders) != 1:
        raise ArchiveBroken(problem=f"it holds {len(folders)} folders instead of one")
    return directory / folders.pop()


def _checked(entry: tarfile.TarInfo, count: int) -> str:
    """The folder of a plain file. Raises `ArchiveUnsafe`."""
    shown = repr(entry.name[:100])
    if count >= FILES:
        raise ArchiveUnsafe(entry=shown, problem=f"which is one more than {FILES} files")
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
        raise ArchiveUnsafe(entry=shown, problem="which is no plain file")
    if not _PLACE.fullmatch(entry.name) or not entry.name.endswith(ENDINGS):
        raise ArchiveUnsafe(entry=shown, problem="a name that no file of a model has")
    return entry.name.partition("/")[0]


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(entry)
    if source is None:
        raise ArchiveUnsafe(entry=repr(entry.name), problem="which is no plain file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(source, file)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise ArchiveUnsafe(entry=repr(entry.name), problem="which is there twice") from error
