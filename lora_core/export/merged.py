"""The merged model of an artifact alone: what transformers and text-embeddings-inference load."""

import shutil
from pathlib import Path

from lora_core import manifest
from lora_core.artifact import load_merged, save_classifier
from lora_core.errors.export import NoEncoder
from lora_core.export.folder import new_folder


def export(artifact: Path, out: Path) -> None:
    """A plain transformers checkpoint in the folder `out`.

    The config is written anew: artifacts of version 0.1 may lack the names of their labels.
    Raises `ArtifactCorrupt`, `NoEncoder`, `OutExists`.
    """
    if manifest.is_linear(manifest.verify(artifact)["files"]):
        raise NoEncoder(path=artifact.name, program="transformers")
    with new_folder(out) as folder:
        save_classifier(folder, load_merged(artifact))
        copy_tokenizer(artifact, folder)


def copy_tokenizer(artifact: Path, folder: Path) -> None:
    """The tokenizer of an artifact's merged model, as it is."""
    for file in (artifact / manifest.MERGED).glob("tokenizer*.json"):
        shutil.copyfile(file, folder / file.name)
