"""An adapter that `peft` trained, as an artifact."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from lora_core import __version__, artifact, manifest, peft_format
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.load import fingerprint, load_with_head, locate
from lora_core.errors.adapter import (
    AdapterBaseUnknown,
    AdapterNotFinite,
    AdapterNotFound,
    AdapterTensors,
)
from lora_core.export.folder import new_folder
from lora_core.imports import beside
from lora_core.imports.as_spec import as_spec
from lora_core.imports.attach import attach
from lora_core.imports.header import check_header
from lora_core.inference.predictor import Predictor
from lora_core.inject import adapters
from lora_core.merge import merge_adapters
from lora_core.peft_format import PREFIX, WEIGHTS
from lora_core.specs.method import LoraSpec
from lora_core.stored_answers import save_golden

TEXTS = (  # whose answers are kept in the artifact
    "A warm, funny and quietly brilliant film that I did not want to end.",
    "Two hours of clumsy jokes and wooden acting; I nearly fell asleep.",
    "It is what it is.",
    "Please send the invoice again, the last one was for another customer.",
    "The delivery came two days late, but the people at the desk were kind and found it at once.",
    "No.",
    "Prices rose by 3.2 % in May, more than had been expected.",
    "I would not say that it was bad, and I would not say that it was good either.",
)


def import_adapter(
    directory: Path,
    out: Path,
    *,
    base: str | None = None,
    labels: Sequence[str] = (),
    max_length: int | None = None,
) -> dict[str, Any]:
    """Make the artifact `out` of a PEFT adapter and the base that it was trained on.

    `base`, `labels` and `max_length` win over what the files say. Adapters that no `LoraSpec`
    describes, such as those of several ranks, are merged but not kept apart; the method is then
    `merged`. Returns the manifest.

    Raises every kind of `AdapterError`, `UnsafeWeights`, `OutExists`, `MergeMismatch`, and what
    `locate` raises.
    """
    config = peft_format.read_config(directory)
    tensors = _read(directory / WEIGHTS)
    name = base or config.base_model_name_or_path
    if not name:
        raise AdapterBaseUnknown()
    found = locate(name, None if base else config.revision)
    names = beside.labels(directory, found, tensors, labels)
    length = beside.max_length(directory, found, max_length)
    tokenizer = load_tokenizer(beside.tokenizer(directory, found))

    model, missing = load_with_head(found, names)
    base_sha256 = fingerprint(model, found.family)
    usual = attach(model.eval(), found.family, config, tensors, missing)
    spec = as_spec(model, found.family, config.variant, config.lora_dropout) if usual else None
    with new_folder(out) as folder:
        if spec is not None:
            state = _state(model, found.family)
            artifact.save_adapter(folder, spec, state, found.family.model_type)
        difference = _save(folder, model, tokenizer, length)
        if spec is not None:
            artifact.save_head(folder, model, found.family)
        facts = {
            "format": artifact.FORMAT,
            "created_by": {"loraworks": __version__, "import": "peft"},
            "spec": {"base": found.name, "base_revision": found.commit, "method": _method(spec)},
            "encoder": found.family.model_type,
            "base_sha256": base_sha256,
            "labels": names,
            "max_length": length,
            "metrics": {"labels": names, "merge_difference": difference},
        }
        return manifest.write(folder, facts)


def _read(path: Path) -> dict[str, Tensor]:
    """Every tensor in float32, by its name in the model.

    Raises `HeaderTooLarge`, `AdapterNotFound`, `AdapterTensors`, `AdapterNotFinite`.
    """
    check_header(path)
    try:
        stored = load_file(path)
    except SafetensorError as error:
        problem = f"{WEIGHTS} cannot be read ({error})"
        raise AdapterNotFound(path=path.parent.name, problem=problem) from error
    for key, tensor in stored.items():
        if not key.startswith(PREFIX):
            raise AdapterTensors(problem="unexpected", names=key)
        if not torch.isfinite(tensor).all():
            raise AdapterNotFinite(tensor=key)
    return {key.removeprefix(PREFIX): tensor.float() for key, tensor in stored.items()}


def _state(model: PreTrainedModel, family: EncoderFamily) -> dict[str, Tensor]:
    """What a run with a trained head would have saved."""
    trained = {**adapters(model), **{name: model.get_submodule(name) for name in family.head}}
    return {
        f"{name}.{part}": parameter.detach().clone()
        for name, module in trained.items()
        for part, parameter in module.named_parameters(recurse=False)
    }


def _save(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, max_length: int) -> float:
    """Merge the model, write it with its answers, and say how far merging moved the logits."""

    def answers(model: PreTrainedModel) -> NDArray[np.float32]:
        predictor = Predictor.of(model, tokenizer, max_length)
        return predictor.forward(predictor.encode(TEXTS)).numpy()

    unmerged = answers(model)
    merge_adapters(model)
    artifact.save_merged(folder, model, tokenizer, max_length)
    merged = answers(artifact.load_merged(folder))
    save_golden(folder, TEXTS, merged)
    return artifact.check_merge(unmerged, merged)


def _method(spec: LoraSpec | None) -> dict[str, Any]:
    return {"type": "merged"} if spec is None else spec.model_dump(mode="json")
