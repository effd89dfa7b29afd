"""An artifact: a finished model as an immutable directory.

manifest.json             metadata, and sha256 of every file; written last
merged/                   plain transformers checkpoint and tokenizer
adapter.safetensors/.json the trained tensors and the spec, for LoRA runs
head.safetensors          the head of such a run, for serving on a shared base
golden.json               a few test texts with their logits
predictions/*.jsonl       the prediction for every validation and test text
misclassified/*.jsonl     misclassified texts, the most confident predictions first

A linear model has `linear.json` and `linear.safetensors` (`lora_core/linear/files.py`) instead of
`merged/`, adapter and head.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lora_core.atomic_files import write_json
from lora_core.data.tokens import find_special_tokens
from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.load import silence_transformers
from lora_core.errors.training import MergeMismatch
from lora_core.manifest import MERGED
from lora_core.saved_predictions import compare_logits
from lora_core.specs.method import LoraSpec

HEAD_LAYERS = ("first", "last")  # names of the head's layers in head.safetensors


class SavedAdapter(NamedTuple):
    """The adapter of a LoRA run, saved next to the merged model."""

    spec: LoraSpec
    tensors: dict[str, Tensor]  # float32
    family: str  # `model_type` of the encoder


def save_adapter(directory: Path, spec: LoraSpec, state: dict[str, Tensor], family: str) -> None:
    """Save the trained tensors of a LoRA run, and the spec that is needed to interpret them."""
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, directory / "adapter.safetensors", metadata={"format": "pt"})
    facts = {"encoder": family, "method": spec.model_dump(mode="json")}
    write_json(directory / "adapter.json", facts)


def load_adapter(directory: Path) -> SavedAdapter:
    """Load the adapter that `save_adapter` wrote.

    Each adapted layer has the tensors `<path>.A` (r, d_in) and `<path>.B` (d_out, r), with DoRA
    also `<path>.magnitude` (d_out,). A head that was trained in full has `<path>.weight`
    (d_out, d_in) and `<path>.bias` (d_out,). `<path>` is the path of the layer in the model of
    transformers.
    """
    facts = json.loads((directory / "adapter.json").read_text(encoding="utf-8"))
    spec = LoraSpec.model_validate(facts["method"])
    return SavedAdapter(spec, load_file(directory / "adapter.safetensors"), facts["encoder"])


def save_head(directory: Path, model: PreTrainedModel, family: EncoderFamily) -> None:
    """Save the merged layers after the encoder, which serving needs besides adapter and base."""
    tensors = head_tensors(model, family)
    save_file(tensors, directory / "head.safetensors", metadata={"format": "pt"})


def head_tensors(model: nn.Module, family: EncoderFamily) -> dict[str, Tensor]:
    """Return the weights of the layers after the encoder in float32.

    They are `first.weight` (width, width), `first.bias`, `last.weight` (classes, width) and
    `last.bias`. Those of an `AdapterLinear` include its adapter, as if it were merged.
    """
    layers = {
        name: model.get_submodule(path) for name, path in zip(HEAD_LAYERS, family.head, strict=True)
    }
    return {
        f"{name}.{part}": getattr(layer, part).detach().float().contiguous()
        for name, layer in layers.items()
        for part in ("weight", "bias")
    }


def save_merged(
    directory: Path, model: PreTrainedModel, tokenizer: Tokenizer, max_length: int
) -> None:
    """Save a model without adapters, as `AutoModelForSequenceClassification` loads it."""
    merged = directory / MERGED
    save_classifier(merged, model)
    tokenizer.save(str(merged / "tokenizer.json"))
    write_json(
        merged / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "model_input_names": ["input_ids", "attention_mask"],
            **find_special_tokens(tokenizer),
        },
    )


def save_classifier(directory: Path, model: PreTrainedModel) -> None:
    """Save weights and config, with all label names in the config.

    transformers omits the names `LABEL_0` and `LABEL_1`, and text-embeddings-inference does not
    load a classifier without both maps.
    """
    model.save_pretrained(directory)
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    labels = label_names(model)
    config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    config["label2id"] = {label: i for i, label in enumerate(labels)}
    config["architectures"] = [type(model).__name__]
    write_json(path, config)


def label_names(model: PreTrainedModel) -> list[str]:
    """Return the labels of a classifier, in the order of its outputs."""
    return [model.config.id2label[i] for i in range(model.config.num_labels)]


def load_merged(directory: Path) -> PreTrainedModel:
    """Load the merged model in float32, in evaluation mode.

    Raises `ValueError` if a tensor is missing, unexpected, or of another shape.
    """
    silence_transformers()
    model, info = AutoModelForSequenceClassification.from_pretrained(
        directory / MERGED,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if unmatched := [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]:
        raise ValueError(f"the checkpoint does not fit its config: {unmatched[0]}")
    return model.eval()


def read_model_type(directory: Path) -> str:
    """Return the architecture of the merged model, such as `distilbert`."""
    return str(_config(directory)["model_type"])


def read_labels(directory: Path) -> list[str]:
    """Return the labels of the merged model, in the order of its logits."""
    config = _config(directory)
    names = config.get(
        "id2label", {"0": "LABEL_0", "1": "LABEL_1"}
    )  # which transformers leaves out
    return [names[str(i)] for i in range(len(names))]


def check_merge(unmerged: NDArray[np.float32], merged: NDArray[np.float32]) -> float:
    """Return the largest difference of logits. Raises `MergeMismatch` if too large or NaN."""
    difference, limit = compare_logits(merged, unmerged)
    if not difference <= limit:
        raise MergeMismatch(difference=difference, tolerance=limit)
    return difference


def _config(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / MERGED / "config.json").read_text("utf-8"))
    return config
