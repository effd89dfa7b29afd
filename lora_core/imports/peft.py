"""What an adapter needs and its config has no place for: names of labels, length of texts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_core import __version__, artifact, manifest, peft_format
from lora_core.adapters import adapters, merge_adapters
from lora_core.compatibility import read_shape
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.load import Base, fingerprint, load_with_head, locate
from lora_core.encoders.modules import blocks
from lora_core.errors.adapter import (
    AdapterBaseUnknown,
    AdapterLabels,
    AdapterNotFinite,
    AdapterNotFound,
    AdapterShape,
    AdapterTensors,
)
from lora_core.errors.spec import LengthTooLarge
from lora_core.export.folder import new_folder
from lora_core.imports.safetensors_header import check_header
from lora_core.inference.predictor import Predictor
from lora_core.layers import VARIANTS
from lora_core.peft_format import MAGNITUDE, PREFIX, WEIGHTS, A, AdapterConfig, B
from lora_core.saved_predictions import save_golden
from lora_core.specs.data import MAX_LENGTH
from lora_core.specs.method import Head, LoraSpec, Role, Variant


def find_labels(
    directory: Path, base: Base, tensors: Mapping[str, Tensor], given: Sequence[str]
) -> list[str]:
    """Their names: as given, as beside the adapter, as the base has them, or `LABEL_0` and on.

    Raises `AdapterLabels`.
    """
    known = base.config.get("id2label") or {}
    last = tensors.get(f"{base.family.head[-1]}.weight")
    count = len(last) if last is not None and last.dim() else len(known) or 2
    if given:
        if len(given) != count or len(set(given)) != count:
            raise AdapterLabels(given=len(set(given)), count=count)
        return list(given)
    for names in (_beside(directory), known):
        if len(names) == count and set(names) == {str(i) for i in range(count)}:
            return [str(names[str(i)]) for i in range(count)]
    return [f"LABEL_{i}" for i in range(count)]


def find_max_length(directory: Path, base: Base, given: int | None) -> int:
    """Tokens of the longest text: as given, or as the tokenizer beside the adapter has it.

    Raises `LengthTooLarge`.
    """
    longest = read_shape(base.config, base=base.name).longest
    if given is not None:
        if not 8 <= given <= longest:
            raise LengthTooLarge(max_length=given, limit=longest)
        return given
    said = _json(directory / "tokenizer_config.json").get("model_max_length")
    return min(said if isinstance(said, int) and said >= 8 else MAX_LENGTH, longest)


def find_tokenizer(directory: Path, base: Base) -> Path:
    """The `tokenizer.json` of the adapter, or else that of the base."""
    own = directory / "tokenizer.json"
    return own if own.is_file() else base.directory / "tokenizer.json"


def _beside(directory: Path) -> Mapping[str, Any]:
    """What our own export puts beside an adapter, or the config that many trainers leave there."""
    for file, key in (("id2label.json", None), ("config.json", "id2label")):
        said = _json(directory / file)
        names = said.get(key) if key else said
        if isinstance(names, dict) and names:
            return names
    return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


# MERGED lora_core.imports.peft
# Adapters that are there to the description that makes them.


def as_spec(
    model: nn.Module, family: EncoderFamily, variant: Variant, dropout: float
) -> LoraSpec | None:
    """The spec that makes exactly the adapters of this model.

    None if there is none: they differ in rank or scale, or lie on other layers than those of some
    roles in some blocks.
    """
    found = adapters(model)
    count = len(blocks(model, family))
    places = {
        f"{family.block_list}.{i}.{path}": (i, role)
        for i in range(count)
        for role, paths in family.roles.items()
        for path in paths
    }
    layers = {places[name][0] for name in found if name in places}
    roles = {places[name][1] for name in found if name in places}
    described = {name for name, (i, role) in places.items() if i in layers and role in roles}
    kinds = {(adapter.r, adapter.alpha) for adapter in found.values()}
    if described != found.keys() or len(kinds) != 1:
        return None
    [(r, alpha)] = kinds
    try:
        return LoraSpec(
            variant=variant,
            r=r,
            alpha=alpha,
            dropout=dropout,
            targets=tuple(role for role in Role if role in roles),
            layers=None if len(layers) == count else tuple(sorted(layers)),
            head=Head.TRAIN,
        )
    except ValidationError:  # beyond what a run may ask for
        return None


# MERGED lora_core.imports.peft
# The tensors of a PEFT adapter in their places in a model.

_PARTS = {"A": A, "B": B, "magnitude": MAGNITUDE}


def attach(
    model: nn.Module,
    family: EncoderFamily,
    config: AdapterConfig,
    tensors: dict[str, Tensor],
    missing: set[str],
) -> bool:
    """Put adapters beside their layers, and what comes in full in its place.

    `missing`: layers of the head that the base does not have. Adapters on the head are merged,
    as an artifact keeps a trained head in full. Says whether only adapters and the head came.

    Raises `AdapterTensors` if a tensor is left over or not there, `AdapterShape`.
    """
    left = dict(tensors)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and config.adapts(name):
            _adapt(model, name, layer, config, left)
    for name, adapter in adapters(model).items():
        if name in family.head:
            adapter.merge()
            model.set_submodule(name, adapter.base)
    parameters = dict(model.named_parameters())
    for name, tensor in left.items():
        if name not in parameters:
            raise AdapterTensors(problem="unexpected", names=PREFIX + name)
        _copy(parameters[name], tensor, name)
    if absent := {name for name in missing if f"{name}.weight" not in left}:
        raise AdapterTensors(problem="missing, here and in the base", names=", ".join(absent))
    return all(name.rpartition(".")[0] in family.head for name in left)


def _adapt(
    model: nn.Module, name: str, layer: nn.Linear, config: AdapterConfig, left: dict[str, Tensor]
) -> None:
    r, alpha = config.rank(name), config.alpha(name)
    if config.variant is Variant.DORA and config.use_rslora:
        alpha *= r**0.5  # the scale of DoRA is alpha / r here
    adapter = VARIANTS[config.variant](layer, r=r, alpha=alpha, dropout=config.lora_dropout)
    for part, parameter in adapter.adapter_parameters():
        key = f"{name}.{_PARTS[part]}"
        if key not in left:
            raise AdapterTensors(problem="missing", names=PREFIX + key)
        _copy(parameter, left.pop(key), key)
    model.set_submodule(name, adapter.eval())


@torch.no_grad()
def _copy(parameter: Tensor, value: Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        raise AdapterShape(
            tensor=PREFIX + name, found=list(value.shape), expected=list(parameter.shape)
        )
    parameter.copy_(value)


# MERGED lora_core.imports.peft
# An adapter that `peft` trained, as an artifact.

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
    names = find_labels(directory, found, tensors, labels)
    length = find_max_length(directory, found, max_length)
    tokenizer = load_tokenizer(find_tokenizer(directory, found))

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
