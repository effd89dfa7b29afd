"""What is known of the first rows of a file: all that a run needs to go on from there.

logits.safetensors   (rows, labels) in float32, in the order of the rows
manifest.json        how many texts were cut, the labels, sha256 of the other; written last
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lora_core import manifest
from lora_core.atomic_files import new_entry
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch
from lora_core.failpoints import reach

KIND = "answers"
LOGITS = "logits.safetensors"

Logits = NDArray[np.float32]  # (rows, labels)


@dataclass
class Answers:
    """Grows chunk by chunk. `cut` counts the texts that were longer than the model reads."""

    labels: Sequence[str]
    chunks: list[Logits] = field(default_factory=list)
    cut: int = 0

    @property
    def step(self) -> int:
        """Rows that are answered."""
        return sum(map(len, self.chunks))

    def add(self, logits: Logits, *, cut: int) -> None:
        """The next rows."""
        self.chunks.append(logits)
        self.cut += cut

    def rows(self) -> Logits:
        """All logits so far, (rows, labels)."""
        none = np.empty((0, len(self.labels)), dtype=np.float32)
        return np.concatenate([none, *self.chunks])


def write(parent: Path, answers: Answers) -> Path:
    """Publish a new directory `step-<rows>` in `parent`. Raises `DiskFull`."""
    final = parent / f"step-{answers.step}"
    with new_entry(final) as unfinished:
        unfinished.mkdir()
        save_file({"logits": answers.rows()}, unfinished / LOGITS)
        facts = {"kind": KIND, "labels": list(answers.labels), "cut": answers.cut}
        manifest.write(unfinished, facts)
    reach("answers_published")
    return final


def read(directory: Path, labels: Sequence[str]) -> Answers:
    """What was written. Raises `CheckpointCorrupt`, and `CheckpointMismatch` for other labels."""
    try:
        facts = manifest.verify(directory)
        if facts.get("kind") != KIND or facts["files"].keys() != {LOGITS}:
            raise CheckpointCorrupt(path=directory.name, problem="it lists other files")
        logits, cut, named = load_file(directory / LOGITS)["logits"], facts["cut"], facts["labels"]
    except ArtifactCorrupt as error:
        raise CheckpointCorrupt(path=directory.name, problem=error.detail["problem"]) from error
    except (KeyError, SafetensorError) as error:
        problem = f"{type(error).__name__} while reading it"
        raise CheckpointCorrupt(path=directory.name, problem=problem) from error
    if named != list(labels) or logits.shape[1:] != (len(labels),):
        raise CheckpointMismatch(path=directory.name, what="the model has other labels")
    return Answers(labels, [logits], int(cut))
