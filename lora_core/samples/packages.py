"""Data files of pinned packages. The packages themselves are never imported.

A file is read from the cache, where `lora_core.samples.fetch` stores it, or else from the package
if it is installed.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lora_core import manifest
from lora_core.cache import cache_dir
from lora_core.errors.base_model import SampleFileChecksumMismatch, SamplePackageMissing


@dataclass(frozen=True)
class SamplePackage:
    """A release on PyPI, identified by the content of its wheel."""

    name: str
    version: str
    wheel: str  # file name
    bytes: int
    sha256: str

    @property
    def directory(self) -> Path:
        """Where its files are stored after a download."""
        return cache_dir() / "samples" / f"{self.name}-{self.version}"


@dataclass(frozen=True)
class PackagedFile:
    """A file of a release, identified by its content."""

    package: SamplePackage
    path: str  # as listed by the package
    sha256: str


def get_packaged_file_path(file: PackagedFile) -> Path:
    """Return the path of the file on this host. Raises `SamplePackageMissing`."""
    package = file.package
    if (fetched := package.directory / file.path).is_file():
        return fetched
    try:
        path = Path(str(distribution(package.name).locate_file(file.path)))
    except PackageNotFoundError as error:
        raise SamplePackageMissing(package=package.name, version=package.version) from error
    if not path.is_file():
        raise SamplePackageMissing(package=package.name, version=package.version)
    return path


def all_files_present(files: Iterable[PackagedFile]) -> bool:
    """Return whether all files are on this host. Their content is not checked."""
    try:
        for file in files:
            get_packaged_file_path(file)
    except SamplePackageMissing:
        return False
    return True


def get_verified_file_path(file: PackagedFile) -> Path:
    """Return the path of the file on this host, after checking its content.

    Raises `SamplePackageMissing` if the package or the file is missing,
    `SampleFileChecksumMismatch` if the content differs.
    """
    path = get_packaged_file_path(file)
    stat = path.stat()
    sha256 = _sha256(os.fspath(path), stat.st_size, stat.st_mtime_ns)
    if sha256 != file.sha256:
        raise SampleFileChecksumMismatch(
            file=file.path,
            found=sha256,
            expected=file.sha256,
            package=file.package.name,
            version=file.package.version,
        )
    return path


def all_files_verified(files: Iterable[PackagedFile]) -> bool:
    """Return whether all files are on this host with their pinned content."""
    try:
        for file in files:
            get_verified_file_path(file)
    except (SamplePackageMissing, SampleFileChecksumMismatch):
        return False
    return True


@lru_cache(maxsize=16)
def _sha256(path: str, size: int, modified: int) -> str:  # noqa: ARG001 - part of the cache key
    """Return the digest, cached while size and modification time are unchanged."""
    return manifest.file_sha256(Path(path))
