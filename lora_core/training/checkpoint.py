"""A checkpoint as a directory of safetensors and JSON, which cannot run code when it is read.

tensors.safetensors   weights, optimizer state, best weights, states of the random generators
state.json            the rest: progress, metrics, the identity of the run
manifest.json         format version, sha256 of both; written last

It is published atomically: written under a hidden name, fsynced, then renamed.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_core import manifest
from lora_core.atomic_files import fsync, is_disk_full
from lora_core.cross_validation import AutoSelectionResult
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch, DiskFull
from lora_core.failpoints import failpoint
from lora_core.results import MethodSelection
from lora_core.specs.fields import AliasedStoredModel
from lora_core.specs.train import TrainSpec
from lora_core.specs.validation_problems import first_problem_location_and_message
from lora_core.training.training_state import TrainingProgress, TrainingState

KIND = "checkpoint"
FORMAT_VERSION = 1  # raise it when the content or its meaning changes
_CROSS_VALIDATED, _CROSS_FITTED = "cross_validated", "cross_fitted"  # names of tensors
STATE_FILE, TENSORS_FILE = "state.json", "tensors.safetensors"
_TEMPORARY = ".unfinished"  # one at a time: the next write removes what a killed run left here


class RunIdentity(AliasedStoredModel):
    """A run, identified by content: its data and base may be stored elsewhere the next time."""

    spec: TrainSpec  # with every default filled in
    data_sha256: str
    frozen_weights_sha256: str = Field(alias="base_sha256")  # of the tokenizer, too
    environment: dict[str, str]


class StateFileContent(AliasedStoredModel):
    """The content of state.json."""

    identity: RunIdentity = Field(alias="origin")
    progress: TrainingProgress = Field(alias="figures")
    selection: MethodSelection | None = None  # how the method was selected, if by `auto`


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that was read and verified."""

    name: str
    identity: RunIdentity
    progress: TrainingProgress
    tensors: Mapping[str, Tensor]
    selection: MethodSelection | None = None
    cross_validated: Tensor | None = None  # validation logits by cross-validation
    cross_fitted: Tensor | None = None  # see `AutoSelectionResult`


def write(
    parent: Path,
    state: TrainingState,
    identity: RunIdentity,
    selected: AutoSelectionResult | None = None,
) -> Path:
    """Publish a new directory `step-<n>` in `parent`. Raises `DiskFull`, leaving nothing behind."""
    temporary = parent / _TEMPORARY
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        selection = selected.selection if selected else None
        content = StateFileContent(
            identity=identity, progress=state.progress(), selection=selection
        )
        text = json.dumps(content.model_dump(mode="json", by_alias=True), allow_nan=False)
        (temporary / STATE_FILE).write_text(text, encoding="utf-8")
        tensors = {name: tensor.contiguous() for name, tensor in state.tensors().items()}
        if selected is not None and selected.cross_validated is not None:
            tensors[_CROSS_VALIDATED] = torch.from_numpy(selected.cross_validated)
        if selected is not None and selected.cross_fitted is not None:
            tensors[_CROSS_FITTED] = torch.from_numpy(selected.cross_fitted).contiguous()
        save_file(tensors, temporary / TENSORS_FILE)
        for name in (STATE_FILE, TENSORS_FILE):
            fsync(temporary / name)
        failpoint("checkpoint_files_written")
        manifest.create_and_save(temporary, {"kind": KIND, "version": FORMAT_VERSION})
        fsync(temporary)
        failpoint("checkpoint_written")
        return _publish(temporary, parent / f"step-{state.step}")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error):
            raise DiskFull(what="a checkpoint") from error
        raise


def read_verified(directory: Path) -> SavedCheckpoint:
    """Read a checkpoint and verify every byte of it.

    Only its three files are ever opened. Raises `CheckpointCorrupt`, and `CheckpointMismatch` for
    another format version. A file that cannot be read is not treated as corrupt: its `OSError`
    propagates.
    """
    try:
        facts = manifest.read(directory)
        if facts.get("kind") != KIND or facts["files"].keys() != {STATE_FILE, TENSORS_FILE}:
            raise CheckpointCorrupt(path=directory.name, problem="it lists other files")
        manifest.verify(directory)
        if (version := facts.get("version")) != FORMAT_VERSION:
            what = f"its format version is {version}, this program reads {FORMAT_VERSION}"
            raise CheckpointMismatch(path=directory.name, what=what)
        content = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
        state = StateFileContent.model_validate(content)
        tensors = load_file(directory / TENSORS_FILE)
        selected = tensors.pop(_CROSS_VALIDATED, None), tensors.pop(_CROSS_FITTED, None)
    except ArtifactCorrupt as error:
        raise CheckpointCorrupt(path=directory.name, problem=error.detail["problem"]) from error
    except (ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointCorrupt(path=directory.name, problem=_describe_error(error)) from error
    return SavedCheckpoint(
        directory.name, state.identity, state.progress, tensors, state.selection, *selected
    )


def _publish(temporary: Path, final: Path) -> Path:
    """Make the checkpoint visible. It replaces one of the same step, written before a resume."""
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    fsync(final.parent)
    failpoint("checkpoint_published")
    return final


def _describe_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        place, _ = first_problem_location_and_message(error, StateFileContent)
        return f"{STATE_FILE} has no valid {place}"
    return f"{type(error).__name__} while reading it"
