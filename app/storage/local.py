"""A store in a directory that every process of the installation can reach."""

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
    CHECKPOINTS,
    OUR_OWN,
    OWNER,
    PROBE,
    UNFINISHED,
    ArtifactRef,
    Store,
    StoredFile,
    check_any_key,
    check_copy,
    check_file_key,
    check_key,
    describe,
)
from lora_core import atomic_files, manifest
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.failpoints import reach

_REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
}

log = structlog.get_logger(__name__)


class LocalStore(Store):
    """Whole directories come and go by a rename, which nobody sees half done."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root.absolute()
        self._folder: tuple[int, int] | None = None  # which one it is
        self._known = False  # as the store, because there was something in it
        self._check_mounted()

    def put(self, directory: Path, key: str) -> ArtifactRef:
        target = self._place(check_key(key))
        with _explained():
            ref = describe(directory, key)
            if target.exists():
                self._check_same(target, ref)
                _remove(directory)
                return ref
            os.utime(directory / manifest.MANIFEST)  # its age in the store begins now
            self._move(directory, target, key)
        return ref

    def path(self, ref: ArtifactRef) -> Path:
        with _explained():
            place = self._place(check_key(ref.key))
            if not place.is_dir():
                raise self._missing(f"{ref.key}/{manifest.MANIFEST}")
            return place

    def verified(self, ref: ArtifactRef) -> Path:
        with _explained():
            directory = self.path(ref)
            check_copy(directory, ref)
            return directory

    def _content(self, name: str) -> bytes:
        with _explained():
            try:
                return self._place(name).read_bytes()
            except FileNotFoundError as error:
                raise self._missing(name) from error

    def put_file(self, path: Path, key: str) -> None:
        target = self._place(check_file_key(key))
        with _explained():
            if target.exists():
                raise ArtifactExists(key=key)
            os.utime(path)
            self._move(path, target, key)

    def file(self, key: str, sha256: str) -> Path:
        place = self._place(check_file_key(key))
        with _explained():
            if not place.is_file():
                raise self._missing(key)
            if manifest.sha256(place) != sha256:
                raise ArtifactCorrupt(path=place.name, problem="the file has changed")
        return place

    def delete(self, key: str) -> None:
        place = self._place(check_any_key(key))
        with _explained():
            doomed = self._hidden()
            try:
                place.rename(doomed)  # first out of sight, so that no one sees a half
            except FileNotFoundError:
                return
            _remove(doomed)
            for folder in place.parents[: max(0, key.count("/") - 1)]:
                _remove_if_empty(folder)  # of a job that has nothing more

    def files(self) -> Iterator[StoredFile]:
        self._check_mounted()
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                try:
                    facts = path.lstat()
                except FileNotFoundError:  # another process is deleting
                    continue
                if path.name not in OUR_OWN:
                    yield StoredFile(
                        path.relative_to(self._root).as_posix(), facts.st_size, facts.st_mtime
                    )

    def owner(self, candidate: str | None) -> str | None:
        place = self._root / OWNER
        self._check_mounted()
        with _explained():
            if candidate is not None and not place.exists():
                mark = self._hidden()
                mark.write_text(candidate, encoding="utf-8")
                atomic_files.sync(mark)
                with suppress(FileExistsError):  # a link takes no place that is taken
                    os.link(mark, place)
                mark.unlink()
                atomic_files.sync(self._root)
            return place.read_text(encoding="utf-8") if place.exists() else None

    def now(self) -> float:
        self._check_mounted()
        with _explained():
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / PROBE
            probe.write_bytes(b"")
            os.utime(probe)
            return probe.stat().st_mtime

    def _identity(self) -> tuple[int, int] | None:
        """Which folder this is, if it is there."""
        try:
            facts = self._root.stat()
        except OSError:
            return None
        return facts.st_dev, facts.st_ino

    def _check_mounted(self) -> None:
        """What is written into the empty folder below a disk that is away would be lost.

        A process that began with an empty folder may have begun with that one: it goes over to a
        folder with something in it as soon as there is one.
        """
        found = self._identity()
        came = found not in (None, self._folder) and not self._known and self._is_in_use()
        if self._folder is None or came:
            self._folder, self._known = found, came
        elif found != self._folder:
            raise StorageUnavailable(
                reason="its folder is not the one of the start; is its disk mounted?"
            )

    def _place(self, key: str) -> Path:
        self._check_mounted()
        root = self._root.resolve()
        place = root / key
        if place.resolve() != place or not place.is_relative_to(root):
            raise ValueError(f"the store key {key!r} leads out of the store")
        return place

    def _hidden(self) -> Path:
        hidden = self._root / UNFINISHED
        hidden.mkdir(parents=True, exist_ok=True)
        return hidden / uuid4().hex

    def _missing(self, name: str) -> ArtifactCorrupt | StorageUnavailable:
        """Where not even the folder of its kind is, this may be the empty folder below a disk that
        is away. Checkpoints are believed to be gone as soon as anything else is there: without them
        a job only starts again.
        """
        kind = Path(name).parts[0]
        gone = (self._root / kind).is_dir() or (kind == CHECKPOINTS and self._is_in_use())
        if not gone:
            return StorageUnavailable(reason=f"it has no folder {kind}; is its disk mounted?")
        return ArtifactCorrupt(path=name, problem=f"{Path(name).name} is missing")

    def _is_in_use(self) -> bool:
        """Whether more is in it than a look at it leaves behind."""
        try:
            return any(each.name not in (PROBE, UNFINISHED) for each in self._root.iterdir())
        except OSError:
            return False

    def _check_same(self, target: Path, ref: ArtifactRef) -> None:
        listed = target / manifest.MANIFEST
        if not listed.is_file() or manifest.sha256(listed) != ref.manifest_sha256:
            raise ArtifactExists(key=ref.key)

    def _move(self, source: Path, target: Path, key: str) -> None:
        made = _make_folders(target.parent)
        atomic_files.sync_all(source)
        try:
            _rename(source, target, key)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = self._hidden()
            try:
                if source.is_dir():
                    shutil.copytree(source, copy)
                else:
                    shutil.copy2(source, copy)
                atomic_files.sync_all(copy)
                _rename(copy, target, key)
            except BaseException:
                _remove(copy)
                raise
            _remove(source)
        for folder in (target.parent, *(each.parent for each in made)):
            atomic_files.sync(folder)  # each new name is an entry of the folder above it


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of the system as errors of the store, but for a full disk, which is known as such."""
    try:
        yield
    except OSError as error:
        if atomic_files.is_no_room(error):
            raise
        log.warning("the store cannot be used", error=str(error))
        reason = error.strerror or type(error).__name__
        if error.errno in _REFUSED:
            raise StorageRefused(reason=reason) from error
        raise StorageUnavailable(reason=reason) from error


def _make_folders(folder: Path) -> list[Path]:
    """Make it and what is missing above it; returns those, the innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _rename(source: Path, target: Path, key: str) -> None:
    """Rename a directory; a non-empty one in its place is an error on every system."""
    reach("store_files_written")
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
