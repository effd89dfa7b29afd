"""Storage of uploaded files. Paths are made of ids and known suffixes, never of client input."""

from pathlib import Path
from uuid import uuid4

from app.datasets.tables import Dataset
from app.errors import DataDirectoryUnusable
from app.settings import Settings
from app.storage.store import Store
from lora_core import manifest
from lora_core.atomic_files import is_disk_full
from lora_core.errors.artifact import ArtifactCorrupt

INCOMING_DIR = ".incoming"  # directory of files that are being received


def store_key(dataset: Dataset) -> str:
    """Return the key of the file in the store. The file name is unique too."""
    return f"uploads/{dataset.id}/{dataset.id}{dataset.suffix}"


def legacy_path(settings: Settings, dataset: Dataset) -> Path:
    """Return where version 0.1 stored the file of a data set; such files stay there."""
    return settings.datasets_dir / f"{dataset.id}{dataset.suffix}"


def local_path(settings: Settings, store: Store, dataset: Dataset) -> Path:
    """Return a read-only file on this machine. Raises `ArtifactCorrupt` if its hash differs."""
    path = legacy_path(settings, dataset)
    if not path.is_file():
        return store.file_path(store_key(dataset), dataset.sha256)
    if manifest.sha256(path) != dataset.sha256:
        raise ArtifactCorrupt(path=path.name, problem="the file has changed")
    return path


def delete_file(settings: Settings, store: Store, dataset: Dataset) -> None:
    """Delete the file of a data set that was deleted."""
    legacy_path(settings, dataset).unlink(missing_ok=True)
    store.delete_best_effort(store_key(dataset))


def create_incoming_dir(settings: Settings) -> Path:
    """Create an empty directory for a file to receive. Raises `DataDirectoryUnusable`."""
    directory = settings.datasets_dir / INCOMING_DIR / uuid4().hex
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise DataDirectoryUnusable(reason=error.strerror) from error
    return directory
