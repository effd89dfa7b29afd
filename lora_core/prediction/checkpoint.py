"""Checkpoints of batch prediction: the logits of the first rows of a file.

logits.safetensors   (rows, labels) in float32, in the order of the rows
manifest.json        number of truncated texts, labels, sha256 of the other file; written last
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lora_core import manifest
from lora_core.atomic_files import atomic_entry
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch
from lora_core.failpoints import failpoint

KIND = "answers"  # in the manifest
LOGITS_FILE = "logits.safetensors"

Logits = NDArray[np.float32]  # (rows, labels)


@dataclass
class PredictionState:
    """The logits of all rows so far, in chunks."""

    labels: Sequence[str]
    chunks: list[Logits] = field(default_factory=list)
    truncated: int = 0  # texts that were longer than the model reads

    @property
    def step(self) -> int:
        """Number of predicted rows."""
        return sum(map(len, self.chunks))

    def append(self, logits: Logits, *, truncated: int) -> None:
        """Add the logits of the next rows."""
        self.chunks.append(logits)
        self.truncated += truncated

    def logits(self) -> Logits:
        """Return all logits so far, (rows, labels)."""
        empty = np.empty((0, len(self.labels)), dtype=np.float32)
        return np.concatenate([empty, *self.chunks])


def write(parent: Path, state: PredictionState) -> Path:
    """Publish a new directory `step-<rows>` in `parent` and return it. Raises `DiskFull`."""
    directory = parent / f"step-{state.step}"
    with atomic_entry(directory) as unfinished:
        unfinished.mkdir()
        save_file({"logits": state.logits()}, unfinished / LOGITS_FILE)
        manifest_data = {"kind": KIND, "labels": list(state.labels), "cut": state.truncated}
        manifest.write(unfinished, manifest_data)
    failpoint("answers_published")
    return directory


def read(directory: Path, labels: Sequence[str]) -> PredictionState:
    """Read a checkpoint of a model with these labels.

    Raises `CheckpointCorrupt`, and `CheckpointMismatch` if the checkpoint has other labels.
    """
    try:
        manifest_data = manifest.verify(directory)
        if manifest_data.get("kind") != KIND or manifest_data["files"].keys() != {LOGITS_FILE}:
            raise CheckpointCorrupt(path=directory.name, problem="it lists other files")
        logits = load_file(directory / LOGITS_FILE)["logits"]
        truncated, saved_labels = manifest_data["cut"], manifest_data["labels"]
    except ArtifactCorrupt as error:
        raise CheckpointCorrupt(path=directory.name, problem=error.detail["problem"]) from error
    except (KeyError, SafetensorError) as error:
        problem = f"{type(error).__name__} while reading it"
        raise CheckpointCorrupt(path=directory.name, problem=problem) from error
    if saved_labels != list(labels) or logits.shape[1:] != (len(labels),):
        raise CheckpointMismatch(path=directory.name, what="the model has other labels")
    return PredictionState(labels, [logits], int(truncated))
