"""A checkpoint as a directory: safetensors and JSON, nothing that could run code when read.

tensors.safetensors   weights, moments of the optimizer, best weights, states of the generators
state.json            the rest: place in the run, figures, where it was made
manifest.json         version of this form, sha256 of both; written last

It appears whole: written under a hidden name, brought to the disk, then renamed.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_core import manifest
from lora_core.atomic_files import is_no_room, sync
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch, DiskFull
from lora_core.failpoints import reach
from lora_core.model_selection import Selection
from lora_core.specs.frozen import Frozen
from lora_core.specs.validation import first_fault
from lora_core.training.chosen import Chosen
from lora_core.training.run_identity import Origin
from lora_core.training.training_state import Figures, Progress

KIND = "checkpoint"
VERSION = 1  # raised when what is kept, or what it means, changes
CROSS_VALIDATED = "cross_validated"  # a tensor
STATE, TENSORS = "state.json", "tensors.safetensors"
UNFINISHED = ".unfinished"  # one at a time; what a killed run left here goes with the next


class State(Frozen):
    """The content of state.json."""

    origin: Origin
    figures: Figures
    selection: Selection | None = None  # how the method was chosen, if it was


@dataclass(frozen=True)
class Checkpoint:
    """One that was read and whose digests are right."""

    name: str
    origin: Origin
    figures: Figures
    tensors: Mapping[str, Tensor]
    selection: Selection | None = None
    cross_validated: Tensor | None = None  # logits of the validation part


def write(parent: Path, progress: Progress, origin: Origin, chosen: Chosen | None = None) -> Path:
    """Publish a new directory `step-<n>` in `parent`. Raises `DiskFull`; then nothing is left."""
    unfinished = parent / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        selection = chosen.selection if chosen else None
        state = State(origin=origin, figures=progress.figures(), selection=selection)
        text = json.dumps(state.model_dump(mode="json"), allow_nan=False)
        (unfinished / STATE).write_text(text, encoding="utf-8")
        tensors = {name: tensor.contiguous() for name, tensor in progress.tensors().items()}
        if chosen is not None and chosen.cross_validated is not None:
            tensors[CROSS_VALIDATED] = torch.from_numpy(chosen.cross_validated)
        save_file(tensors, unfinished / TENSORS)
        for name in (STATE, TENSORS):
            sync(unfinished / name)
        reach("checkpoint_files_written")
        manifest.write(unfinished, {"kind": KIND, "version": VERSION})
        sync(unfinished)
        reach("checkpoint_written")
        return _publish(unfinished, parent / f"step-{progress.step}")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_no_room(error):
            raise DiskFull(what="a checkpoint") from error
        raise


def read(directory: Path) -> Checkpoint:
    """A checkpoint whose every byte is as it was written.

    Nothing but its three files is ever opened. Raises `CheckpointCorrupt`, and `CheckpointMismatch`
    for one of another version. A file that cannot be read is no damage: such an `OSError` is raised
    as it is.
    """
    try:
        facts = manifest.read(directory)
        if facts.get("kind") != KIND or facts["files"].keys() != {STATE, TENSORS}:
            raise CheckpointCorrupt(path=directory.name, problem="it lists other files")
        manifest.verify(directory)
        if (version := facts.get("version")) != VERSION:
            what = f"its form is {version}, this program reads {VERSION}"
            raise CheckpointMismatch(path=directory.name, what=what)
        state = State.model_validate(json.loads((directory / STATE).read_text(encoding="utf-8")))
        tensors = load_file(directory / TENSORS)
        cross_validated = tensors.pop(CROSS_VALIDATED, None)
    except ArtifactCorrupt as error:
        raise CheckpointCorrupt(path=directory.name, problem=error.detail["problem"]) from error
    except (ValueError, SafetensorError) as error:
        raise CheckpointCorrupt(path=directory.name, problem=_reason(error)) from error
    return Checkpoint(
        directory.name, state.origin, state.figures, tensors, state.selection, cross_validated
    )


def _publish(unfinished: Path, final: Path) -> Path:
    """Only now it can be seen. One of the same step, from before a resume, gives way."""
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    sync(final.parent)
    reach("checkpoint_published")
    return final


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        place, _ = first_fault(error, State)
        return f"{STATE} has no valid {place}"
    return f"{type(error).__name__} while reading it"
