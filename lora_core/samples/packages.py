"""Data files of pinned packages. The packages themselves are never imported."""

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lora_core import manifest
from lora_core.errors.base_model import SampleChecksumMismatch, SamplePackageMissing


@dataclass(frozen=True)
class PackagedFile:
    """A file of a release, identified by its content."""

    package: str
    version: str
    path: str  # as listed by the package
    sha256: str


def locate_file(file: PackagedFile) -> Path:
    """Return the path of the file on this host, after checking its content.

    Raises `SamplePackageMissing` if the package or the file is missing, `SampleChecksumMismatch`
    if the content differs.
    """
    try:
        files = distribution(file.package).files or []
    except PackageNotFoundError as error:
        raise SamplePackageMissing(package=file.package, version=file.version) from error
    path = next(
        (Path(str(entry.locate())) for entry in files if entry.as_posix() == file.path), None
    )
    if path is None or not path.is_file():
        raise SamplePackageMissing(package=file.package, version=file.version)
    stat = path.stat()
    sha256 = _sha256(os.fspath(path), stat.st_size, stat.st_mtime_ns)
    if sha256 != file.sha256:
        raise SampleChecksumMismatch(
            file=file.path,
            found=sha256,
            expected=file.sha256,
            package=file.package,
            version=file.version,
        )
    return path


@lru_cache(maxsize=16)
def _sha256(path: str, size: int, modified: int) -> str:  # noqa: ARG001 - part of the cache key
    """Return the digest, cached while size and modification time are unchanged."""
    return manifest.sha256(Path(path))
