"""A store in a local directory, which all processes of the installation must share."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import structlog

from app.storage.errors import ArtifactExists, StorageRefused, StorageUnavailable
from app.storage.store import (
    CHECKPOINTS_PREFIX,
    OWNER_FILE,
    PROBE_FILE,
    RESERVED_FILES,
    UNFINISHED_PREFIX,
    ArtifactRef,
    Store,
    StoredFile,
    check_any_key,
    check_directory_key,
    check_file_key,
    verify_and_build_ref,
    verify_directory,
)
from lora_core import atomic_files, manifest
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.failpoints import failpoint

_ACCESS_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
}

log = structlog.get_logger(__name__)


class LocalStore(Store):
    """Adds and removes directories by an atomic rename, so that no process sees a partial one."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root.absolute()
        self._root_identity: tuple[int, int] | None = None  # (st_dev, st_ino)
        self._had_content = False  # the root with this identity had content
        self._check_mounted()

    def move_directory_into_store(self, directory: Path, key: str) -> ArtifactRef:
        target = self._resolve(check_directory_key(key))
        with _translate_os_errors():
            ref = verify_and_build_ref(directory, key)
            if target.exists():
                self._check_same_content(target, ref)
                _remove(directory)
                return ref
            os.utime(directory / manifest.MANIFEST_FILE)  # its age in the store starts now
            self._move_in(directory, target, key)
        return ref

    def local_directory(self, ref: ArtifactRef) -> Path:
        with _translate_os_errors():
            path = self._resolve(check_directory_key(ref.key))
            if not path.is_dir():
                raise self._missing_error(f"{ref.key}/{manifest.MANIFEST_FILE}")
            return path

    def verified_directory(self, ref: ArtifactRef) -> Path:
        with _translate_os_errors():
            directory = self.local_directory(ref)
            verify_directory(directory, ref)
            return directory

    def _read_file(self, name: str) -> bytes:
        with _translate_os_errors():
            try:
                return self._resolve(name).read_bytes()
            except FileNotFoundError as error:
                raise self._missing_error(name) from error

    def move_file_into_store(self, path: Path, key: str) -> None:
        target = self._resolve(check_file_key(key))
        with _translate_os_errors():
            if target.exists():
                raise ArtifactExists(key=key)
            os.utime(path)
            self._move_in(path, target, key)

    def verified_file(self, key: str, sha256: str) -> Path:
        path = self._resolve(check_file_key(key))
        with _translate_os_errors():
            if not path.is_file():
                raise self._missing_error(key)
            if manifest.file_sha256(path) != sha256:
                raise ArtifactCorrupt(path=path.name, problem="the file has changed")
        return path

    def delete(self, key: str) -> None:
        path = self._resolve(check_any_key(key))
        with _translate_os_errors():
            trash = self._temporary_path()
            try:
                path.rename(trash)  # hide it first, so that no process sees a partial directory
            except FileNotFoundError:
                return
            _remove(trash)
            for parent in path.parents[: max(0, key.count("/") - 1)]:
                _remove_if_empty(parent)

    def list_files(self) -> Iterator[StoredFile]:
        self._check_mounted()
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                try:
                    stat = path.lstat()
                except FileNotFoundError:  # another process deleted it
                    continue
                if path.name not in RESERVED_FILES:
                    yield StoredFile(
                        path.relative_to(self._root).as_posix(), stat.st_size, stat.st_mtime
                    )

    def get_or_set_owner(self, candidate: str | None) -> str | None:
        path = self._root / OWNER_FILE
        self._check_mounted()
        with _translate_os_errors():
            if candidate is not None and not path.exists():
                temporary = self._temporary_path()
                temporary.write_text(candidate, encoding="utf-8")
                atomic_files.fsync(temporary)
                with suppress(FileExistsError):  # a link never replaces an existing file
                    os.link(temporary, path)
                temporary.unlink()
                atomic_files.fsync(self._root)
            return path.read_text(encoding="utf-8") if path.exists() else None

    def read_clock(self) -> float:
        self._check_mounted()
        with _translate_os_errors():
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / PROBE_FILE
            probe.write_bytes(b"")
            os.utime(probe)
            return probe.stat().st_mtime

    def _identity(self) -> tuple[int, int] | None:
        """Return the identity of the root directory, or None if there is none."""
        try:
            stat = self._root.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def _check_mounted(self) -> None:
        """Raise `StorageUnavailable` if the disk of the root directory is no longer mounted.

        Anything written to the empty mount point would be lost. A process that started with an
        empty root may have started with the mount point: it switches to a root with content as soon
        as there is one.
        """
        identity = self._identity()
        was_mounted = (
            identity not in (None, self._root_identity)
            and not self._had_content
            and self._has_content()
        )
        if self._root_identity is None or was_mounted:
            self._root_identity, self._had_content = identity, was_mounted
        elif identity != self._root_identity:
            raise StorageUnavailable(
                reason="its directory changed since the start; is its disk mounted?"
            )

    def _resolve(self, key: str) -> Path:
        self._check_mounted()
        root = self._root.resolve()
        path = root / key
        if path.resolve() != path or not path.is_relative_to(root):
            raise ValueError(f"the store key {key!r} leads outside of the store")
        return path

    def _temporary_path(self) -> Path:
        directory = self._root / UNFINISHED_PREFIX
        directory.mkdir(parents=True, exist_ok=True)
        return directory / uuid4().hex

    def _missing_error(self, name: str) -> ArtifactCorrupt | StorageUnavailable:
        """Return the error for a missing file.

        If even the top-level directory of its kind is missing, the root may be the mount point of a
        disk that is not mounted. Checkpoints count as deleted if the store has any other content:
        without them, a job only starts over.
        """
        kind = Path(name).parts[0]
        is_deleted = (self._root / kind).is_dir() or (
            kind == CHECKPOINTS_PREFIX and self._has_content()
        )
        if not is_deleted:
            return StorageUnavailable(reason=f"it has no directory {kind}; is its disk mounted?")
        return ArtifactCorrupt(path=name, problem=f"{Path(name).name} is missing")

    def _has_content(self) -> bool:
        """Return whether the root contains more than the files that checks leave behind."""
        try:
            return any(
                path.name not in (PROBE_FILE, UNFINISHED_PREFIX) for path in self._root.iterdir()
            )
        except OSError:
            return False

    def _check_same_content(self, target: Path, ref: ArtifactRef) -> None:
        manifest_path = target / manifest.MANIFEST_FILE
        if (
            not manifest_path.is_file()
            or manifest.file_sha256(manifest_path) != ref.manifest_sha256
        ):
            raise ArtifactExists(key=ref.key)

    def _move_in(self, source: Path, target: Path, key: str) -> None:
        created = _make_parents(target.parent)
        atomic_files.fsync_tree(source)
        try:
            _rename(source, target, key)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = self._temporary_path()
            try:
                if source.is_dir():
                    shutil.copytree(source, copy)
                else:
                    shutil.copy2(source, copy)
                atomic_files.fsync_tree(copy)
                _rename(copy, target, key)
            except BaseException:
                _remove(copy)
                raise
            _remove(source)
        for directory in (target.parent, *(path.parent for path in created)):
            atomic_files.fsync(directory)  # a new name is an entry of its parent directory


@contextmanager
def _translate_os_errors() -> Iterator[None]:
    """Raise an `OSError` of the block as an error of the store, except for a full disk."""
    try:
        yield
    except OSError as error:
        if atomic_files.is_disk_full(error):
            raise
        log.warning("the store cannot be used", error=str(error))
        reason = error.strerror or type(error).__name__
        if error.errno in _ACCESS_ERRNOS:
            raise StorageRefused(reason=reason) from error
        raise StorageUnavailable(reason=reason) from error


def _make_parents(directory: Path) -> list[Path]:
    """Create the directory and its missing parents; return the created ones, innermost first."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _rename(source: Path, target: Path, key: str) -> None:
    """Rename a directory or file. The target must not exist, which is an error for a directory."""
    failpoint("store_files_written")
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ArtifactExists(key=key) from error
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # not empty
        directory.rmdir()
