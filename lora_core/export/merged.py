"""Export of the merged model as transformers and text-embeddings-inference load it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_core import manifest
from lora_core.artifact import load_merged, save_classifier
from lora_core.errors.export import NoEncoder, OutputExists


@contextmanager
def atomic_directory(out: Path) -> Iterator[Path]:
    """Yield a directory to fill; it becomes `out` if the block succeeds, else it is removed.

    Raises `OutputExists` unless `out` is missing or an empty directory.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise OutputExists(path=out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=out.parent))
    try:
        unfinished = temporary / "made"
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(out)  # replaces an empty directory, never one with content
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def export_merged(artifact: Path, out: Path) -> None:
    """Write the merged model of an artifact as a transformers checkpoint into the directory `out`.

    Writes the config anew, because artifacts of version 0.1 may lack the names of their labels.
    Raises `ArtifactCorrupt`, `NoEncoder`, `OutputExists`.
    """
    if manifest.is_linear(manifest.verify(artifact)["files"]):
        raise NoEncoder(path=artifact.name, program="transformers")
    with atomic_directory(out) as directory:
        save_classifier(directory, load_merged(artifact))
        copy_tokenizer(artifact, directory)


def copy_tokenizer(artifact: Path, directory: Path) -> None:
    """Copy the tokenizer of an artifact's merged model."""
    for file in (artifact / manifest.MERGED).glob("tokenizer*.json"):
        shutil.copyfile(file, directory / file.name)
