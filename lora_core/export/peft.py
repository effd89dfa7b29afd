"""An adapter as `peft` writes it.

adapter_config.json        a scale that gives the same product, and the layers by one pattern
adapter_model.safetensors  A, B and magnitude of each layer, and the head in full
id2label.json              names of the labels, for which the config has no place
tokenizer.json, tokenizer_config.json
base/                      the frozen model, unless the hub has it as it is
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from lora_core import manifest, peft_format
from lora_core.adapters import adapters
from lora_core.artifact import (
    SavedAdapter,
    label_names,
    load_adapter,
    load_merged,
    save_classifier,
)
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.load import Base, load_with_head, locate
from lora_core.encoders.modules import is_pooled
from lora_core.encoders.pooling import pool
from lora_core.errors.export import BaseDiffers, NoAdapter, NoEncoder
from lora_core.export.folder import new_folder
from lora_core.export.merged import copy_tokenizer
from lora_core.inference.predictor import Predictor
from lora_core.methods.lora import Lora
from lora_core.saved_predictions import compare, load_golden, write_json
from lora_core.specs.method import Head, LoraSpec, Variant
from lora_core.specs.pooling import Pooling

BASE = "base"


def export(artifact: Path, out: Path, *, base: str | None = None) -> None:
    """Write the adapter of a LoRA run into the folder `out`.

    `base` says where the model lies that was trained on, if not where the artifact says. It must
    be that model: the answers kept in the artifact have to come out again.

    Raises `NoEncoder`, `NoAdapter`, `BaseDiffers`, `ArtifactCorrupt`, `OutExists`, and what
    `locate` raises.
    """
    facts = manifest.verify(artifact)
    if manifest.is_linear(facts["files"]):
        raise NoEncoder(path=artifact.name, program="PEFT")
    if not (artifact / "adapter.safetensors").is_file():
        raise NoAdapter(path=artifact.name, method=facts["spec"]["method"]["type"])
    adapter = load_adapter(artifact)
    revision = None if base else facts["spec"].get("base_revision")
    found = locate(base or facts["spec"]["base"], revision)
    merged = load_merged(artifact)
    with new_folder(out) as folder:
        model = _with_head_of(merged, found)
        place = {"base_model_name_or_path": found.name, "revision": found.commit}
        if found.commit is None or is_pooled(model.config):  # which the hub does not have
            save_classifier(folder / BASE, model)
            copy_tokenizer(artifact, folder / BASE)
            place = {"base_model_name_or_path": str(out.absolute() / BASE)}
        _adapt(model, found.family, adapter)
        _check(artifact, model, found, facts["max_length"])
        _write(folder, model, found.family, place | _config(adapter.spec, found.family, model))
        copy_tokenizer(artifact, folder)


def _with_head_of(merged: PreTrainedModel, base: Base) -> PreTrainedModel:
    """The base under the final head: an adapter on the head is merged, PEFT has none there."""
    model, _ = load_with_head(base, label_names(merged))
    pool(model, base.family, Pooling(getattr(merged.config, "pooling", Pooling.CLS)))
    for name in base.family.head:
        model.set_submodule(name, merged.get_submodule(name))
    return model.eval()


def _adapt(model: PreTrainedModel, family: EncoderFamily, adapter: SavedAdapter) -> None:
    method = Lora(adapter.spec.model_copy(update={"head": Head.FROZEN}))
    method.prepare(model, family)
    head = tuple(f"{name}." for name in family.head)
    method.restore(model, {n: t for n, t in adapter.tensors.items() if not n.startswith(head)})


def _check(artifact: Path, model: PreTrainedModel, base: Base, max_length: int) -> None:
    """Raises `BaseDiffers` unless the kept answers come out again."""
    texts, kept = load_golden(artifact)
    tokenizer = load_tokenizer(artifact / manifest.MERGED / "tokenizer.json")
    predictor = Predictor.of(model, tokenizer, max_length)
    difference, limit = compare(predictor.forward(predictor.encode(texts)).numpy(), kept)
    if not difference <= limit:
        raise BaseDiffers(base=base.name, difference=difference)


def _config(spec: LoraSpec, family: EncoderFamily, model: PreTrainedModel) -> dict[str, Any]:
    scale = spec.alpha * spec.r if spec.variant is Variant.UNSCALED else spec.alpha
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "inference_mode": True,
        "r": spec.r,
        "lora_alpha": int(scale) if scale.is_integer() else scale,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.variant is Variant.RSLORA,
        "use_dora": spec.variant is Variant.DORA,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": _pattern(family, adapters(model)),
        "modules_to_save": list(family.saved_modules),
    }


def _pattern(family: EncoderFamily, names: Any) -> str:
    """One expression for exactly these layers. A list goes by endings, and BERT's are not clear."""
    blocks, paths = set(), set()
    for name in names:
        block, path = name.removeprefix(f"{family.block_list}.").split(".", 1)
        blocks.add(int(block))
        paths.add(path)
    numbers = "|".join(map(str, sorted(blocks)))
    ends = "|".join(map(re.escape, sorted(paths)))
    return rf"{re.escape(family.block_list)}\.({numbers})\.({ends})"


def _write(
    folder: Path, model: PreTrainedModel, family: EncoderFamily, config: dict[str, Any]
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, adapter in adapters(model).items():
        tensors[f"{name}.{peft_format.A}"] = adapter.A
        tensors[f"{name}.{peft_format.B}"] = adapter.B
        if config["use_dora"]:
            tensors[f"{name}.{peft_format.MAGNITUDE}"] = adapter.get_parameter("magnitude")
    for name in family.head:
        for part, parameter in model.get_submodule(name).named_parameters():
            tensors[f"{name}.{part}"] = parameter
    named = {f"{peft_format.PREFIX}{n}": t.detach().to(torch.float32) for n, t in tensors.items()}
    save_file(named, folder / peft_format.WEIGHTS, metadata={"format": "pt"})
    write_json(folder / peft_format.CONFIG, config)
    labels = {str(i): label for i, label in enumerate(label_names(model))}
    write_json(folder / "id2label.json", labels)
