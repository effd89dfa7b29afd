"""Where uploaded files lie: names of ids and listed endings, never of what a caller sent."""

from pathlib import Path
from uuid import uuid4

from app.datasets.tables import Dataset
from app.errors import DataFolderUnusable
from app.settings import Settings
from app.storage.store import Store
from lora_core import manifest
from lora_core.atomic_files import is_no_room
from lora_core.errors.artifact import ArtifactCorrupt

INCOMING = ".incoming"  # folder of the files that are being received


def key(dataset: Dataset) -> str:
    """The place in the store. The name of the file is that of no other upload."""
    return f"uploads/{dataset.id}/{dataset.id}{dataset.suffix}"


def first_place(settings: Settings, dataset: Dataset) -> Path:
    """Where version 0.1 put the file of a data set; it stays there."""
    return settings.datasets_dir / f"{dataset.id}{dataset.suffix}"


def find(settings: Settings, store: Store, dataset: Dataset) -> Path:
    """The file on this machine, to read only. Raises `ArtifactCorrupt` if it is not as it was."""
    place = first_place(settings, dataset)
    if not place.is_file():
        return store.file(key(dataset), dataset.sha256)
    if manifest.sha256(place) != dataset.sha256:
        raise ArtifactCorrupt(path=place.name, problem="the file has changed")
    return place


def discard(settings: Settings, store: Store, dataset: Dataset) -> None:
    """Remove the file of a data set whose row is gone."""
    first_place(settings, dataset).unlink(missing_ok=True)
    store.discard(key(dataset))


def incoming(settings: Settings) -> Path:
    """A fresh folder for a file that is being received. Raises `DataFolderUnusable`."""
    folder = settings.datasets_dir / INCOMING / uuid4().hex
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        if is_no_room(error):
            raise
        raise DataFolderUnusable(reason=error.strerror) from error
    return folder
