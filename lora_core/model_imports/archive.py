"""Unpack the archive of an artifact: regular files with plain names, and nothing else.

Also checks the headers of safetensors files before a library reads them.
"""

import json
import re
import shutil
import tarfile
from pathlib import Path

from lora_core.errors.artifact import InvalidArchive, SafetensorsHeaderTooLarge, UnsafeArchive
from lora_core.manifest import MODEL_CARD_FILE

MAX_FILES = 100  # far more than an artifact has
ALLOWED_SUFFIXES = (".json", ".jsonl", ".safetensors")
_ENTRY_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99}/){1,2}[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def unpack_archive(archive: Path, directory: Path) -> Path:
    """Unpack a tar file into the empty `directory` and return the one folder in it.

    The archive must be uncompressed, so that its size bounds the size of its files. Raises
    `InvalidArchive`, `UnsafeArchive`.
    """
    folders: set[str] = set()
    try:
        with tarfile.open(archive, "r:", errorlevel=2) as tar:
            for count, entry in enumerate(tar):
                if entry.isdir():
                    continue
                folder = _check_entry(entry, count)
                if entry.name == f"{folder}/{MODEL_CARD_FILE}":
                    continue  # it describes the model to people, and is not part of it
                folders.add(folder)
                _write(tar, entry, directory / entry.name)
    # RecursionError: a header may describe the next one, which may do so, too
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArchive(problem=str(error) or type(error).__name__) from error
    if len(folders) != 1:
        raise InvalidArchive(problem=f"it contains {len(folders)} folders instead of one")
    return directory / folders.pop()


def _check_entry(entry: tarfile.TarInfo, count: int) -> str:
    """Return the folder of a regular file. Raises `UnsafeArchive`."""
    entry_name = repr(entry.name[:100])
    if count >= MAX_FILES:
        raise UnsafeArchive(
            entry=entry_name, problem=f"which exceeds the limit of {MAX_FILES} files"
        )
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
        raise UnsafeArchive(entry=entry_name, problem="which is not a regular file")
    folder, _, name = entry.name.partition("/")
    is_allowed = name == MODEL_CARD_FILE or name.endswith(ALLOWED_SUFFIXES)
    if not _ENTRY_NAME.fullmatch(entry.name) or not is_allowed:
        raise UnsafeArchive(entry=entry_name, problem="which is not a valid file name of a model")
    return folder


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(entry)
    if source is None:
        raise UnsafeArchive(entry=repr(entry.name), problem="which is not a regular file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(source, file)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise UnsafeArchive(entry=repr(entry.name), problem="which is duplicated") from error


# -- Headers of safetensors files -----------------------------------------------------------------

MAX_HEADER_BYTES = 10_000_000  # far more than any encoder needs; the header is held in memory
MAX_TENSORS = 100_000


def check_safetensors_header(path: Path) -> None:
    """Raise `SafetensorsHeaderTooLarge` or `InvalidArchive`."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise SafetensorsHeaderTooLarge(file=path.name, limit=MAX_HEADER_BYTES)
        try:
            tensors = len(json.loads(file.read(size)))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidArchive(problem=f"{path.name} is not a safetensors file") from error
    if tensors > MAX_TENSORS:
        raise SafetensorsHeaderTooLarge(file=path.name, limit=MAX_TENSORS)
