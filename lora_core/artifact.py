"""An artifact: a finished model as an immutable directory.

manifest.json             metadata, and sha256 of every file; written last
golden.json               a few test texts with their logits
predictions/*.jsonl       the prediction for every validation and test text
misclassified/*.jsonl     misclassified texts, the most confident predictions first
nearest_examples.json,    training texts and their vectors, for explanations
nearest_examples.safetensors

If the run froze the encoder (LoRA, probe, baseline without blocks):

base/                     weights and config of the encoder, and the tokenizer; byte for byte the
                          same for all runs on it: a store keeps it once (`artifact_base_sharing`)
classifier.json           the rest of the config: labels, dropout rates
head.safetensors          the layers after the encoder
adapter.safetensors/.json the trained tensors and the spec, for LoRA

If it trained the encoder:

merged/                   plain transformers checkpoint and tokenizer

Artifacts in format 1 always have `merged/`, and no `base/` or `classifier.json`. A linear model has
`linear.json` and `linear.safetensors` (`lora_core/linear/files.py`) instead.
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

from lora_core.adapters import adapter_layers, merge_adapters
from lora_core.artifact_base_sharing import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    join_classifier_config,
    split_classifier_config,
)
from lora_core.atomic_files import write_indented_json
from lora_core.compatibility import read_encoder_shape
from lora_core.data.tokens import build_special_tokens_map
from lora_core.encoders import get_family, modernbert
from lora_core.encoders import load as encoders
from lora_core.encoders.encoder_parts import family_of
from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.load import (
    BaseCheckpoint,
    disable_transformers_logging,
    read_checked_base_config,
)
from lora_core.errors.training import MergeMismatch
from lora_core.fine_tuning_methods import LoraMethod
from lora_core.manifest import (
    BASE_DIR,
    CLASSIFIER_FILE,
    DEFAULT_ID2LABEL,
    MANIFEST_FILE,
    MERGED_DIR,
)
from lora_core.saved_predictions import logit_difference_and_limit
from lora_core.specs.fields import looks_like_path
from lora_core.specs.method import HeadMode, LoraSpec

HEAD_LAYERS = ("first", "norm", "last")  # names in head.safetensors


class SavedAdapter(NamedTuple):
    """The adapter of a LoRA run."""

    spec: LoraSpec
    tensors: dict[str, Tensor]  # float32
    family: str  # `model_type` of the encoder


def save_adapter(directory: Path, spec: LoraSpec, state: dict[str, Tensor], family: str) -> None:
    """Save the trained tensors of a LoRA run, and the spec that is needed to interpret them."""
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, directory / "adapter.safetensors", metadata={"format": "pt"})
    facts = {"encoder": family, "method": spec.model_dump(mode="json")}
    write_indented_json(directory / "adapter.json", facts)


def read_saved_adapter(directory: Path) -> SavedAdapter:
    """Load the adapter that `save_adapter` wrote.

    Each adapted layer has the tensors `<path>.A` (r, d_in) and `<path>.B` (d_out, r), with DoRA
    also `<path>.magnitude` (d_out,). In format 1, a head that was trained in full has
    `<path>.weight` (d_out, d_in) and `<path>.bias` (d_out,). `<path>` is the path of the layer in
    the model of transformers.
    """
    facts = json.loads((directory / "adapter.json").read_text(encoding="utf-8"))
    spec = LoraSpec.model_validate(facts["method"])
    return SavedAdapter(spec, load_file(directory / "adapter.safetensors"), facts["encoder"])


def save_base_adapter_and_head(
    directory: Path,
    model: PreTrainedModel,
    family: EncoderFamily,
    tokenizer: Tokenizer,
    spec: LoraSpec | None = None,
) -> None:
    """Save a model whose encoder is frozen as base, adapter and head. This merges its adapters.

    With the `spec` of its adapters, they are saved. Raises `NonFiniteMergedWeights`.
    """
    if spec is not None:
        state = {
            f"{name}.{part}": parameter.detach()
            for name, adapter in adapter_layers(model).items()
            for part, parameter in adapter.named_adapter_parameters()
        }
        save_adapter(directory, spec, state, family.model_type)
    _save_base(directory, model, family, tokenizer)
    merge_adapters(model)
    save_head(directory, model, family)


def _save_base(
    directory: Path, model: PreTrainedModel, family: EncoderFamily, tokenizer: Tokenizer
) -> None:
    """Save the frozen encoder of a model, without its adapters, and the config of its classifier.

    Call it before the adapters are merged. The files in `base/` have the same bytes for every run
    with the same encoder and tokenizer, whatever its labels, dropout and maximum length.
    """
    base = directory / BASE_DIR
    base.mkdir()
    save_file(_encoder_weights(model, family), base / WEIGHTS_FILE, metadata={"format": "pt"})
    config, classifier = split_classifier_config(
        {**model.config.to_diff_dict(), **_label_maps(model)}
    )
    write_indented_json(base / CONFIG_FILE, config)
    write_indented_json(directory / CLASSIFIER_FILE, classifier)
    tokenizer.save(str(base / TOKENIZER_FILE))


def _encoder_weights(model: PreTrainedModel, family: EncoderFamily) -> dict[str, Tensor]:
    """Return the weights before the head in float32, by their names in a model without adapters."""
    adapters = adapter_layers(model)
    head = tuple(f"{name}." for name in family.head_module_names)
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        layer, _, part = name.rpartition(".")
        if name.startswith(head) or layer in adapters:
            continue
        if (path := layer.removesuffix(".base")) in adapters:
            name = f"{path}.{part}"
        weights[name] = tensor.detach().float().cpu().contiguous()
    return weights


def save_head(directory: Path, model: PreTrainedModel, family: EncoderFamily) -> None:
    """Save the layers after the encoder, merged."""
    tensors = head_tensors(model, family)
    save_file(tensors, directory / "head.safetensors", metadata={"format": "pt"})


def head_layer_paths(family: EncoderFamily) -> dict[str, str]:
    """Return the layers of the head that a family has, by their names in head.safetensors."""
    first = family.head[0] if len(family.head) > 1 else None
    layers = zip(HEAD_LAYERS, (first, family.head_norm, family.head[-1]), strict=True)
    return {name: path for name, path in layers if path is not None}


def head_tensors(model: nn.Module, family: EncoderFamily) -> dict[str, Tensor]:
    """Return the weights of the layers after the encoder in float32.

    They are `first.weight` (width, width), `first.bias`, `norm.weight`, `norm.bias`, `last.weight`
    (classes, width) and `last.bias`, of which a family may lack some. Those of an `AdapterLinear`
    include its adapter, as if it were merged.
    """
    return {
        f"{name}.{part}": tensor.detach().float().contiguous()
        for name, path in head_layer_paths(family).items()
        for part in ("weight", "bias")
        if (tensor := getattr(model.get_submodule(path), part)) is not None
    }


def save_merged_model(
    directory: Path,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    max_length: int,
    *,
    pairs: bool = False,
) -> None:
    """Save a model without adapters, as `AutoModelForSequenceClassification` loads it.

    `pairs`: whether it reads pairs of texts.
    """
    save_weights_and_config(directory / MERGED_DIR, model)
    token_types = pairs and uses_segment_ids(model.config.to_dict())
    save_tokenizer(directory / MERGED_DIR, tokenizer, max_length, token_types=token_types)


def uses_segment_ids(config: dict[str, Any]) -> bool:
    """Return whether an encoder with this config has a segment for each text of a pair."""
    return read_encoder_shape(config, base=str(config.get("model_type"))).segments > 1


def save_tokenizer(
    directory: Path, tokenizer: Tokenizer, max_length: int, *, token_types: bool = False
) -> None:
    """Save a tokenizer as `AutoTokenizer` loads it.

    With `token_types`, it also returns the segment of each token.
    """
    segments = ["token_type_ids"] if token_types else []
    tokenizer.save(str(directory / TOKENIZER_FILE))
    write_indented_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "model_input_names": ["input_ids", *segments, "attention_mask"],
            **build_special_tokens_map(tokenizer),
        },
    )


def save_weights_and_config(directory: Path, model: PreTrainedModel) -> None:
    """Save weights and config, see `save_model_config`."""
    model.save_pretrained(directory)
    save_model_config(directory, model)


def save_model_config(directory: Path, model: PreTrainedModel) -> None:
    """Save the config of a classifier, with all label names in it.

    transformers omits the names `LABEL_0` and `LABEL_1`, and text-embeddings-inference does not
    load a classifier without both maps. Of ModernBERT it reads the fields of earlier configs, too.
    """
    model.config.save_pretrained(directory)
    path = directory / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    if config["model_type"] == "modernbert":
        config |= modernbert.transformers_4_config_fields(config)
        config["num_labels"] = model.config.num_labels
    write_indented_json(
        path, {**config, **_label_maps(model), "architectures": [type(model).__name__]}
    )


def _label_maps(model: PreTrainedModel) -> dict[str, Any]:
    labels = model_label_names(model)
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def model_label_names(model: PreTrainedModel) -> list[str]:
    """Return the labels of a classifier, in the order of its outputs."""
    return [model.config.id2label[i] for i in range(model.config.num_labels)]


# -- Loading. `base` is the directory of the base, if it is not in the artifact -------------------


def has_merged_checkpoint(directory: Path) -> bool:
    """Return whether an artifact has a merged checkpoint, and not a base with adapter and head."""
    return (directory / MERGED_DIR).is_dir()


def encoder_checkpoint_directory(directory: Path, base: Path | None = None) -> Path:
    """Return where the weights of the encoder, its config and the tokenizer are."""
    return (
        directory / MERGED_DIR if has_merged_checkpoint(directory) else base or directory / BASE_DIR
    )


def load_merged_model(directory: Path, base: Path | None = None) -> PreTrainedModel:
    """Load the merged model in float32, in evaluation mode.

    It has the same bits on every processor. Raises `ValueError` if a tensor is missing, unexpected,
    or of another shape, and `NonFiniteMergedWeights`.
    """
    if not has_merged_checkpoint(directory):
        model = load_base_with_head(directory, base)
        if (directory / "adapter.json").is_file():
            inject_saved_adapter(model, read_saved_adapter(directory))
            merge_adapters(model)
        return model.eval()
    disable_transformers_logging()
    model, info = AutoModelForSequenceClassification.from_pretrained(
        directory / MERGED_DIR,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    return _checked(model, info)


def load_base_with_head(directory: Path, base: Path | None = None) -> PreTrainedModel:
    """Load the encoder of an artifact with a base, and its head, without its adapter, in float32.

    Raises `ValueError` as `load_merged_model` does.
    """
    config = read_merged_config(directory, base)
    weights = load_file(encoder_checkpoint_directory(directory, base) / WEIGHTS_FILE)
    head = load_file(directory / "head.safetensors")
    for name, path in head_layer_paths(get_family(config)).items():
        weights |= {
            f"{path}.{part}": head[key]
            for part in ("weight", "bias")
            if (key := f"{name}.{part}") in head
        }
    return _checked(*encoders.classifier_from_weights(config, weights))


def _checked(model: PreTrainedModel, info: dict[str, Any]) -> PreTrainedModel:
    if unmatched := [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]:
        raise ValueError(f"the checkpoint does not fit its config: {unmatched[0]}")
    return model.eval()


def inject_saved_adapter(model: PreTrainedModel, adapter: SavedAdapter) -> None:
    """Add an adapter to the encoder of a model, whose head is the final one."""
    family = family_of(model)
    method = LoraMethod(adapter.spec.model_copy(update={"head": HeadMode.FROZEN}))
    with torch.random.fork_rng(devices=()):  # A is drawn before it is overwritten
        method.prepare(model, family)
    head = tuple(f"{name}." for name in family.head_module_names)
    tensors = {name: t for name, t in adapter.tensors.items() if not name.startswith(head)}
    method.load_state_dict(model, tensors)


def resolve_base_or_artifact(base: str, revision: str | None = None) -> BaseCheckpoint:
    """Return a base model, as `encoders.load.resolve_base` does, or the model of an artifact.

    Raises what `encoders.load.resolve_base` raises.
    """
    directory = Path(base)
    is_artifact = looks_like_path(base) and (directory / MANIFEST_FILE).is_file()
    # The directory of the sample has a manifest, too.
    if not is_artifact or (directory / CONFIG_FILE).is_file():
        return encoders.resolve_base(base, revision)
    files = encoder_checkpoint_directory(directory)
    config = read_checked_base_config(files, base)
    if has_merged_checkpoint(directory):
        return BaseCheckpoint(base, files, config)
    config = join_classifier_config(config, _read_json(directory / CLASSIFIER_FILE))
    return BaseCheckpoint(base, files, config, lambda: load_merged_model(directory).state_dict())


def read_labels(directory: Path) -> list[str]:
    """Return the labels of the model, in the order of its logits."""
    file = f"{MERGED_DIR}/{CONFIG_FILE}" if has_merged_checkpoint(directory) else CLASSIFIER_FILE
    names = _read_json(directory / file).get("id2label", DEFAULT_ID2LABEL)
    return [names[str(i)] for i in range(len(names))]


def read_merged_config(directory: Path, base: Path | None = None) -> dict[str, Any]:
    """Return the config of the merged model.

    Raises `ArtifactCorrupt`, see `join_classifier_config`.
    """
    config = _read_json(encoder_checkpoint_directory(directory, base) / CONFIG_FILE)
    if has_merged_checkpoint(directory):
        return config
    return join_classifier_config(config, _read_json(directory / CLASSIFIER_FILE))


def check_merged_logits(unmerged: NDArray[np.float32], merged: NDArray[np.float32]) -> float:
    """Return the largest difference of logits. Raises `MergeMismatch` if too large or NaN."""
    difference, limit = logit_difference_and_limit(merged, unmerged)
    if not difference <= limit:
        raise MergeMismatch(difference=difference, tolerance=limit)
    return difference


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
