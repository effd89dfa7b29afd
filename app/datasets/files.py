"""Where uploaded files lie: paths of ids and listed endings, never of what a caller sent."""

from pathlib import Path
from uuid import uuid4

from app.datasets.tables import Dataset
from app.settings import Settings
from lora_core.errors import UnsupportedFormat

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def path(settings: Settings, dataset: Dataset) -> Path:
    """The file of a data set."""
    return settings.datasets_dir / f"{dataset.id}{dataset.suffix}"


def incoming(settings: Settings) -> Path:
    """A fresh folder for a file that is being received, on the disk of the finished ones."""
    folder = settings.datasets_dir / ".incoming" / uuid4().hex
    folder.mkdir(parents=True)
    return folder


def suffix(filename: str) -> str:
    """The ending of a file name, one of those listed. Raises `UnsupportedFormat`."""
    ending = Path(filename.lower()).suffix
    if ending not in SUFFIXES:
        raise UnsupportedFormat(file=filename, reason=f"the ending {ending!r} is not read")
    return ending
