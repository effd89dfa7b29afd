"""Export a model in the formats of `transformers` and `peft`. For ONNX see `onnx`.

The merged model is a checkpoint as transformers and text-embeddings-inference load it. An adapter
is a folder as PEFT loads it:

adapter_config.json        `lora_alpha` such that PEFT computes the same scale; one pattern that
                           matches the adapted layers
adapter_model.safetensors  A, B and magnitude of each layer, and the whole head
id2label.json              names of the labels, for which the config has no field
tokenizer.json, tokenizer_config.json
base/                      the frozen model, unless the hub has exactly this model

Both have a model card, `README.md` (`lora_core/model_card.py`), and `loraworks.json`: how the model
reads texts, and its calibration. Other programs leave it alone.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_core import manifest, peft_format
from lora_core.adapters import adapter_layers
from lora_core.artifact import (
    encoder_checkpoint_directory,
    inject_saved_adapter,
    load_merged_model,
    model_label_names,
    read_merged_config,
    read_saved_adapter,
    resolve_base_or_artifact,
    save_tokenizer,
    save_weights_and_config,
    uses_segment_ids,
)
from lora_core.artifact_base_sharing import TOKENIZER_FILE, has_base
from lora_core.atomic_files import check_new_directory, write_indented_json
from lora_core.compatibility import read_encoder_shape
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders import get_family
from lora_core.encoders.encoder_parts import get_linear_submodule, has_mean_pooling_block
from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.load import BaseCheckpoint, load_with_saved_head, weights_sha256
from lora_core.encoders.pooling import set_pooling
from lora_core.errors.artifact import SingleTargetModel, TargetRequired, UnknownTarget
from lora_core.errors.base_model import BaseNotFound, GatedBase
from lora_core.errors.export import BaseMismatch, NoAdapter, NoEncoder, RemergedWeightsMismatch
from lora_core.errors.training import HubUnavailable
from lora_core.export.model_settings import ExportedModelSettings
from lora_core.hf_hub import is_hub_name
from lora_core.inference.predictor import Predictor
from lora_core.model_card import ExportFormat, is_calibration_fitted, model_card
from lora_core.samples import minilm
from lora_core.saved_predictions import load_golden_predictions, logit_difference_and_limit
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import unqualified_outputs_of_target
from lora_core.specs.method import LoraSpec, LoraVariant
from lora_core.specs.task import RegressionSpec
from lora_core.tasks.base import parse_task_spec_and_calibration
from lora_core.tasks.build import restore_task_and_calibration
from lora_core.tasks.several_targets import SeveralTargets


def export_merged(artifact: Path, out: Path, *, target: str | None = None) -> None:
    """Write the merged model of an artifact as a transformers checkpoint into the directory `out`.

    The weights have the bits that they had at the end of the run, except for those of the last
    layer, which the calibration is folded into. The config is written anew,
    because artifacts of version 0.1 may lack the names of their labels. `target`: which of several
    targets to write. Raises `OutputExists`, and what `load_calibrated_model` raises.
    """
    exported = load_calibrated_model(artifact, target, program="transformers")
    with atomic_directory(out) as directory:
        save_weights_and_config(directory, exported.model)
        write_export_companion_files(directory, exported, ExportFormat.TRANSFORMERS, out)


@dataclass(frozen=True, eq=False)
class CalibratedModel:
    """The merged model of an artifact, whose logits are calibrated ones."""

    artifact: Path
    manifest: dict[str, Any]  # as if the target were the only one
    model: PreTrainedModel
    outputs: slice  # of the artifact's model, which this one has


def load_calibrated_model(artifact: Path, target: str | None, *, program: str) -> CalibratedModel:
    """Load the merged model of an artifact for a program that knows of no calibration.

    Raises `ArtifactCorrupt`, `NoEncoder`, `RemergedWeightsMismatch`, and what
    `extract_single_target_manifest` raises.
    """
    manifest_data = manifest.verify(artifact)
    if manifest.is_linear(manifest_data["files"]):
        raise NoEncoder(path=artifact.name, program=program)
    selected = extract_single_target_manifest(manifest_data, target, artifact.name)
    model = load_merged_model(artifact)
    expected = manifest_data.get("merged_sha256")  # artifacts in format 1 have none
    if expected is not None and weights_sha256(model.state_dict()) != expected:
        raise RemergedWeightsMismatch(path=artifact.name)
    outputs = _keep_outputs(model, manifest_data, target)
    _fold_calibration(model, selected)
    return CalibratedModel(artifact, selected, model, outputs)


def write_export_companion_files(
    directory: Path, exported: CalibratedModel, card_format: ExportFormat, out: Path
) -> None:
    """Write what an export has beside its weights and config; `out` is its final directory."""
    _save_tokenizer(exported.artifact, directory, exported.manifest)
    _write_usage(directory, exported.manifest, model_label_names(exported.model))
    _write_card(directory, exported.manifest, card_format, out)


@contextmanager
def atomic_directory(out: Path) -> Iterator[Path]:
    """Yield a directory to fill; it becomes `out` if the block succeeds, else it is removed.

    Raises `OutputExists` unless `out` is missing or an empty directory.
    """
    check_new_directory(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=out.parent))
    try:
        unfinished = temporary / "made"
        unfinished.mkdir()
        yield unfinished
        _set_ordinary_modes(unfinished)
        unfinished.rename(out)  # replaces an empty directory, never one with content
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _set_ordinary_modes(directory: Path) -> None:
    """Give every file the mode that the umask gives to a new one: safetensors makes them 0600."""
    mode = directory.stat().st_mode & 0o666
    for path in directory.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _write_card(
    directory: Path, manifest_data: dict[str, Any], card_format: ExportFormat, out: Path
) -> None:
    card = model_card(manifest_data, card_format, name=out.absolute().name)
    (directory / manifest.MODEL_CARD_FILE).write_text(card, encoding="utf-8")


def _write_usage(directory: Path, manifest_data: dict[str, Any], labels: list[str]) -> None:
    """Write how loraworks predicts with the model."""
    task, calibration = parse_task_spec_and_calibration(manifest_data, labels)
    is_regression = isinstance(task, RegressionSpec)
    usage = ExportedModelSettings(
        task=task,
        text_pairs=manifest.reads_pairs(manifest_data),
        long_texts="windows" if manifest.reads_windows(manifest_data) else "cut",
        prompt_format=manifest.prompt_format(manifest_data),
        thresholds=dict(zip(labels, calibration.thresholds, strict=False)),  # it may have none
        half_width=calibration.half_width,
        folded_scale=calibration.scale[0] if is_regression else 1.0,
        folded_offset=calibration.offset[0] if is_regression else 0.0,
        fitted=is_calibration_fitted(manifest_data),
    )
    write_indented_json(directory / manifest.USAGE_FILE, usage.model_dump(mode="json"))


@torch.no_grad()
def _fold_calibration(model: PreTrainedModel, manifest_data: dict[str, Any]) -> None:
    """Make the logits of a model calibrated ones, for programs that know of no calibration.

    Temperature, scale and offset go into the last layer, W' = diag(s) W and b' = s b + o, so that
    the pipeline of transformers has the scores of loraworks, and the numbers of a regression.
    """
    task, calibration = restore_task_and_calibration(manifest_data, model_label_names(model))
    scale, offset = (torch.from_numpy(each).float() for each in task.scale_and_offset(calibration))
    last = get_linear_submodule(model, get_family(model.config.to_dict()).head[-1])
    last.weight *= scale[:, None]
    last.bias.mul_(scale).add_(offset)


def _save_tokenizer(artifact: Path, directory: Path, manifest_data: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(encoder_checkpoint_directory(artifact) / TOKENIZER_FILE)
    token_types = manifest.reads_pairs(manifest_data) and uses_segment_ids(
        read_merged_config(artifact)
    )
    save_tokenizer(directory, tokenizer, manifest_data["max_length"], token_types=token_types)


# -- One of several targets -----------------------------------------------------------------------


def extract_single_target_manifest(
    manifest_data: dict[str, Any], target: str | None, model: str
) -> dict[str, Any]:
    """Return the manifest of a model that has this one of several targets only.

    It is unchanged if there is one target and none is named. Raises `TargetRequired`,
    `UnknownTarget`, `SingleTargetModel`.
    """
    spec = manifest_data["spec"]
    task = (spec or {}).get("task", {})
    targets = task.get("targets") if task.get("type") == "several_targets" else None
    if targets is None:
        if target is not None:
            raise SingleTargetModel(model=model)
        return manifest_data
    if target is None:
        raise TargetRequired(model=model, targets=", ".join(targets))
    if target not in targets:
        raise UnknownTarget(model=model, target=target, targets=", ".join(targets))
    of_columns = {"weight", "column", "label_columns", "label_separator"}
    alone = {name: value for name, value in targets[target].items() if name not in of_columns}
    metrics = {
        name: value["targets"][target] if name in list(Split) else value
        for name, value in manifest_data["metrics"].items()
        if name not in ("calibration", "linear", "verdict")
    }
    calibration = manifest_data["calibration"]["targets"][target]
    outputs = list(unqualified_outputs_of_target(target, manifest_data["labels"]))
    return {
        **manifest_data,
        "spec": {**spec, "task": alone},
        "labels": outputs,
        "calibration": calibration,
        "metrics": {**metrics, "labels": outputs, "calibration": calibration},
    }


def _keep_outputs(
    model: PreTrainedModel, manifest_data: dict[str, Any], target: str | None
) -> slice:
    """Leave the model only the outputs of one of several targets; return which these are."""
    if target is None:
        return slice(None)
    task, _ = restore_task_and_calibration(manifest_data, model_label_names(model))
    if not isinstance(task, SeveralTargets):
        raise TypeError(f"{task.type} has one target")
    of_target, outputs = task.tasks[target], task.outputs[target]
    last = get_linear_submodule(model, get_family(model.config.to_dict()).head[-1])
    last.weight = nn.Parameter(last.weight[outputs].detach().clone())
    if last.bias is not None:
        last.bias = nn.Parameter(last.bias[outputs].detach().clone())
    last.out_features = len(of_target.labels)
    model.config.id2label = dict(enumerate(of_target.labels))
    model.config.label2id = {label: i for i, label in enumerate(of_target.labels)}
    model.config.problem_type = of_target.problem_type
    model.num_labels = len(of_target.labels)
    return outputs


# -- Adapters -------------------------------------------------------------------------------------


def export_adapter(
    artifact: Path, out: Path, *, base: str | None = None, target: str | None = None
) -> None:
    """Write the adapter of a LoRA run into the directory `out`.

    Args:
        artifact: Directory of the artifact.
        out: Directory to write.
        base: Folder or hub name of the base model, if it is not where the artifact says. It must
            be the model that the adapter was trained on: it has to reproduce the logits that are
            stored in the artifact.
        target: Which of several targets to write.

    Raises `NoEncoder`, `NoAdapter`, `BaseMismatch`, `ArtifactCorrupt`, `OutputExists`, and what
    `resolve_base_or_artifact` and `extract_single_target_manifest` raise.
    """
    manifest_data = manifest.verify(artifact)
    if manifest.is_linear(manifest_data["files"]):
        raise NoEncoder(path=artifact.name, program="PEFT")
    if not (artifact / "adapter.safetensors").is_file():
        raise NoAdapter(path=artifact.name, method=manifest_data["spec"]["method"]["type"])
    selected = extract_single_target_manifest(manifest_data, target, artifact.name)
    adapter = read_saved_adapter(artifact)
    pretrained = _find_base(artifact, manifest_data, base)
    merged = load_merged_model(artifact)
    with atomic_directory(out) as directory:
        model = _with_merged_head(merged, pretrained)
        outputs = _keep_outputs(model, manifest_data, target)
        source = {"base_model_name_or_path": pretrained.name, "revision": pretrained.commit}
        if not _is_on_hub(pretrained, model):
            save_weights_and_config(directory / manifest.BASE_DIR, model)
            _save_tokenizer(artifact, directory / manifest.BASE_DIR, manifest_data)
            source = {"base_model_name_or_path": str(out.absolute() / manifest.BASE_DIR)}
        inject_saved_adapter(model, adapter)
        _check_base(artifact, model, pretrained, manifest_data, outputs)
        _fold_calibration(model, selected)
        config = source | _adapter_config(adapter.spec, pretrained.family, model)
        _write_adapter(directory, model, pretrained.family, config)
        _save_tokenizer(artifact, directory, manifest_data)
        _write_usage(directory, selected, model_label_names(model))
        _write_card(directory, selected, ExportFormat.PEFT, out)


def _find_base(artifact: Path, manifest_data: dict[str, Any], given: str | None) -> BaseCheckpoint:
    """Return the base that is given, the one on the hub, or else the one in the artifact."""
    if given is not None:
        return resolve_base_or_artifact(given)
    spec = manifest_data["spec"]
    in_artifact = has_base(manifest_data["files"])
    if not in_artifact or (is_hub_name(spec["base"]) and spec["base"] != minilm.NAME):
        try:
            return resolve_base_or_artifact(spec["base"], spec.get("base_revision"))
        except (BaseNotFound, GatedBase, HubUnavailable):
            if not in_artifact:
                raise
    return resolve_base_or_artifact(str(artifact.absolute() / manifest.BASE_DIR))


def _is_on_hub(base: BaseCheckpoint, model: PreTrainedModel) -> bool:
    """Return whether others compute the same with the base and its config on the hub."""
    if base.commit is None or has_mean_pooling_block(model.config):
        return False
    stored = type(model.config).from_dict(base.config)
    keys = [*base.family.settings, *filter(None, [base.family.pooling_key])]
    return all(getattr(stored, key) == getattr(model.config, key) for key in keys)


def _with_merged_head(merged: PreTrainedModel, base: BaseCheckpoint) -> PreTrainedModel:
    """Return the base with the final head, in which an adapter is merged: PEFT supports none."""
    model, _ = load_with_saved_head(base, model_label_names(merged), merged.config.problem_type)
    shape = read_encoder_shape(merged.config.to_dict(), base=base.name)
    set_pooling(model, base.family, shape.pooling)
    for name in base.family.head_module_names:
        model.set_submodule(name, merged.get_submodule(name))
    return model.eval()


def _check_base(
    artifact: Path,
    model: PreTrainedModel,
    base: BaseCheckpoint,
    manifest_data: dict[str, Any],
    outputs: slice,
) -> None:
    """Raise `BaseMismatch` unless the model reproduces its golden predictions."""
    texts, reference = load_golden_predictions(artifact)
    tokenizer = load_tokenizer(encoder_checkpoint_directory(artifact) / TOKENIZER_FILE)
    predictor = Predictor.from_model(
        model,
        tokenizer,
        manifest_data["max_length"],
        pairs=manifest.reads_pairs(manifest_data),
        windows=manifest.reads_windows(manifest_data),
    )
    logits = predictor.forward(predictor.encode(texts)).numpy()
    difference, tolerance = logit_difference_and_limit(logits, reference[:, outputs])
    if not difference <= tolerance:
        raise BaseMismatch(base=base.name, difference=difference)


def _adapter_config(
    spec: LoraSpec, family: EncoderFamily, model: PreTrainedModel
) -> dict[str, Any]:
    alpha = spec.alpha * spec.r if spec.variant is LoraVariant.UNSCALED else spec.alpha
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "inference_mode": True,
        "r": spec.r,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.variant is LoraVariant.RSLORA,
        "use_dora": spec.variant is LoraVariant.DORA,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": _target_pattern(family, adapter_layers(model)),
        "modules_to_save": list(family.saved_modules),
    }


def _target_pattern(family: EncoderFamily, names: Iterable[str]) -> str:
    """Return a regular expression that matches exactly these layers.

    PEFT matches a list by the ends of module names, which are ambiguous in BERT.
    """
    blocks, paths = set(), set()
    for name in names:
        block, path = name.removeprefix(f"{family.block_list}.").split(".", 1)
        blocks.add(int(block))
        paths.add(path)
    block_numbers = "|".join(map(str, sorted(blocks)))
    layer_paths = "|".join(map(re.escape, sorted(paths)))
    return rf"{re.escape(family.block_list)}\.({block_numbers})\.({layer_paths})"


def _write_adapter(
    directory: Path, model: PreTrainedModel, family: EncoderFamily, config: dict[str, Any]
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, adapter in adapter_layers(model).items():
        tensors[f"{name}.{peft_format.A}"] = adapter.A
        tensors[f"{name}.{peft_format.B}"] = adapter.B
        if config["use_dora"]:
            tensors[f"{name}.{peft_format.MAGNITUDE}"] = adapter.get_parameter("magnitude")
    for name in family.head_module_names:
        for part, parameter in model.get_submodule(name).named_parameters():
            tensors[f"{name}.{part}"] = parameter
    prefixed = {
        f"{peft_format.TENSOR_PREFIX}{n}": t.detach().to(torch.float32) for n, t in tensors.items()
    }
    save_file(prefixed, directory / peft_format.WEIGHTS_FILE, metadata={"format": "pt"})
    write_indented_json(directory / peft_format.CONFIG_FILE, config)
    labels = {str(i): label for i, label in enumerate(model_label_names(model))}
    write_indented_json(directory / "id2label.json", labels)
