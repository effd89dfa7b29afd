"""Data files of pinned packages, read as data: the package itself is never imported."""

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lora_core import manifest
from lora_core.errors.base import SampleChanged, SampleMissing


@dataclass(frozen=True)
class PackagedFile:
    """One file of one release, known by its content."""

    package: str
    version: str
    path: str  # as the package lists it
    sha256: str


def locate(file: PackagedFile) -> Path:
    """Where the file is on this machine, its content checked.

    Raises `SampleMissing` if the package or the file is not there, `SampleChanged` if the content
    is another one.
    """
    try:
        listed = distribution(file.package).files or []
    except PackageNotFoundError as error:
        raise SampleMissing(package=file.package, version=file.version) from error
    path = next((Path(str(one.locate())) for one in listed if one.as_posix() == file.path), None)
    if path is None or not path.is_file():
        raise SampleMissing(package=file.package, version=file.version)
    facts = path.stat()
    found = _sha256(os.fspath(path), facts.st_size, facts.st_mtime_ns)
    if found != file.sha256:
        raise SampleChanged(
            file=file.path,
            found=found,
            expected=file.sha256,
            package=file.package,
            version=file.version,
        )
    return path


@lru_cache(maxsize=16)
def _sha256(path: str, size: int, modified: int) -> str:  # noqa: ARG001 - the key of the cache
    """Digest, computed once a process while size and time stay the same."""
    return manifest.sha256(Path(path))
