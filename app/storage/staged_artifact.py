"""A new artifact: its files go into the store first, then one transaction inserts its row.

The base of a model is stored once for all models that use it (docs/decisions/0047).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from app.database.engines import call_after_commit
from app.storage import repository
from app.storage.store import ArtifactRef, Store
from app.storage.tables import Artifact
from lora_core import artifact_base_sharing, manifest
from lora_core.failpoints import failpoint

BASES_PREFIX = "bases"  # first part of the keys of bases

_T = TypeVar("_T")


class StagedArtifact:
    """An artifact whose files were moved into the store. They do not count without a row.

    `directory` becomes the content of `key`, which is new, such as `jobs/<job>/a<attempt>`. Its
    base gets the key `bases/<job>/a<attempt>`, if no base with the same digest is stored. Raises
    `ArtifactCorrupt` if the directory does not match its manifest, and the errors of a store.
    """

    def __init__(self, store: Store, directory: Path, key: str) -> None:
        self._store = store
        base_dir = artifact_base_sharing.split_off_base(directory)
        self._base = _NewBase(store, base_dir, key) if base_dir is not None else None
        self._ref = store.move_directory_into_store(directory, key)

    def retry_after_storing_base(self, write: Callable[[], _T]) -> _T:
        """Return the result of `write`, which is a transaction that calls `add_row`.

        It runs again if the files of the base have to be stored first.
        """
        try:
            return write()
        except _BaseNotStored as error:
            error.base.store_files()
            return write()

    def add_row(self, session: Session, *, job_id: UUID | None, kind: str) -> Artifact:
        """Insert the row of the artifact, and that of its base if there is none.

        Call it first in a transaction, which `retry_after_storing_base` may have to repeat.
        """
        base = self._base.find_or_add(session) if self._base is not None else None
        return repository.add_artifact(session, job_id=job_id, kind=kind, ref=self._ref, base=base)

    def delete_files(self) -> None:
        """Delete the files, because no row refers to them."""
        self._store.delete_best_effort(self._ref.key)
        if self._base is not None:
            self._base.delete_files()


class _NewBase:
    """The base of a new artifact, whose files are only stored if they are needed.

    Two of them never have the same key, so that the deletion of one cannot hit another.
    """

    def __init__(self, store: Store, directory: Path, key_of_artifact: str) -> None:
        self._store = store
        self._directory = directory
        self._key = f"{BASES_PREFIX}/{key_of_artifact.partition('/')[2]}"
        self._digest = manifest.file_sha256(directory / manifest.MANIFEST_FILE)
        self._stored: ArtifactRef | None = None

    def store_files(self) -> None:
        self._stored = self._store.move_directory_into_store(self._directory, self._key)
        failpoint("base_stored")

    def find_or_add(self, session: Session) -> Artifact:
        """Return the row of this base; it cannot be deleted before the transaction ends.

        Raises `_BaseNotStored` if there is none, and the files have not been stored here.
        """
        base = repository.find_and_lock_base_artifact(session, self._digest)
        if base is None:
            if self._stored is None:
                raise _BaseNotStored(self)
            base = repository.ensure_base_artifact(session, self._stored)
        if self._stored is not None and base.key != self._stored.key:  # another one was faster
            call_after_commit(session, self.delete_files)
        return base

    def delete_files(self) -> None:
        if self._stored is not None:
            self._store.delete_best_effort(self._stored.key)


class _BaseNotStored(Exception):
    def __init__(self, base: _NewBase) -> None:
        super().__init__()
        self.base = base
