"""Import an adapter that `peft` trained, as an artifact."""

import json
from collections.abc import Mapping, Sequence
from filecmp import cmp
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
from lora_core.adapters import adapter_layers, merge_adapters
from lora_core.artifact import resolve_base_or_artifact
from lora_core.compatibility import read_encoder_shape
from lora_core.data.label_readers import normalize_label_name
from lora_core.data.tokens import check_tokenizer_adds_special_tokens, load_tokenizer
from lora_core.data.windows import check_no_windowed_pairs
from lora_core.encoders.encoder_parts import blocks, get_linear_submodule
from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.load import (
    BaseCheckpoint,
    encoder_weights_sha256,
    load_with_saved_head,
    weights_sha256,
)
from lora_core.encoders.safety import check_has_fast_tokenizer
from lora_core.errors.adapter import (
    AdapterBaseNotNamed,
    AdapterLabelCountMismatch,
    AdapterNotFinite,
    AdapterNotFound,
    AdapterShapeMismatch,
    AdapterTensorNamesMismatch,
)
from lora_core.errors.artifact import ArtifactCorrupt, UnsupportedTokenizer
from lora_core.errors.spec import MaxLengthTooLarge
from lora_core.export.hugging_face import atomic_directory
from lora_core.export.model_settings import ExportedModelSettings, read_exported_model_settings
from lora_core.inference.predictor import Predictor
from lora_core.layers import VARIANTS
from lora_core.manifest import USAGE_FILE
from lora_core.model_imports.archive import check_safetensors_header
from lora_core.model_imports.tokenizer import validate_tokenizer_get_max_id
from lora_core.peft_format import MAGNITUDE, TENSOR_PREFIX, WEIGHTS_FILE, A, AdapterConfig, B
from lora_core.saved_predictions import save_golden_predictions
from lora_core.specs.data import MAX_LENGTH, DataSpec
from lora_core.specs.method import HeadMode, LayerRole, LoraSpec, LoraVariant
from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskTypeOfTarget
from lora_core.specs.text_input import TextInput
from lora_core.tasks.base import Calibration, Task
from lora_core.tasks.build import restore_task_and_calibration
from lora_core.tasks.multi_label import DEFAULT_THRESHOLD


def resolve_adapter_labels(
    directory: Path, base: BaseCheckpoint, tensors: Mapping[str, Tensor], given: Sequence[str]
) -> list[str]:
    """Return the label names: as given, else from files next to the adapter, the base model, or
    `LABEL_0`…

    Raises `AdapterLabelCountMismatch`.
    """
    base_labels = base.config.get("id2label") or {}
    last = tensors.get(f"{base.family.head[-1]}.weight")
    count = len(last) if last is not None and last.dim() else len(base_labels) or 2
    if given:
        given_names = list(map(normalize_label_name, given))
        if len(given_names) != count or len(set(given_names)) != count:
            raise AdapterLabelCountMismatch(given=len(set(given_names)), count=count)
        return given_names
    for names in (_sidecar_labels(directory), base_labels):
        if len(names) == count and set(names) == {str(i) for i in range(count)}:
            return [normalize_label_name(str(names[str(i)])) for i in range(count)]
    return [f"LABEL_{i}" for i in range(count)]


def resolve_adapter_max_length(directory: Path, base: BaseCheckpoint, given: int | None) -> int:
    """Return the maximum tokens per text: as given, else as in the tokenizer config of the adapter.

    Raises `MaxLengthTooLarge`.
    """
    longest = read_encoder_shape(base.config, base=base.name).max_tokens
    if given is not None:
        if not 8 <= given <= longest:
            raise MaxLengthTooLarge(max_length=given, limit=longest)
        return given
    tokens = _read_json(directory / "tokenizer_config.json").get("model_max_length")
    return min(tokens if isinstance(tokens, int) and tokens >= 8 else MAX_LENGTH, longest)


def resolve_adapter_tokenizer_file(directory: Path, base: BaseCheckpoint) -> Path:
    """Return the `tokenizer.json` of the adapter, else that of the base model.

    Raises `NoFastTokenizer`, and for that of an adapter `UnsupportedTokenizer`.
    """
    adapter_tokenizer, own = directory / "tokenizer.json", base.directory / "tokenizer.json"
    if own.is_file() and adapter_tokenizer.is_file() and cmp(adapter_tokenizer, own, shallow=False):
        return own
    if adapter_tokenizer.is_file():
        shape = read_encoder_shape(base.config, base=base.name)
        if validate_tokenizer_get_max_id(adapter_tokenizer) >= shape.vocabulary:
            raise UnsupportedTokenizer(problem="it has more tokens than its encoder")
        return adapter_tokenizer
    check_has_fast_tokenizer(base.name, (path.name for path in base.directory.iterdir()))
    return own


def _sidecar_labels(directory: Path) -> Mapping[str, Any]:
    """Return the id2label of our own export, or of the config that many trainers save with an
    adapter."""
    for file, key in (("id2label.json", None), ("config.json", "id2label")):
        content = _read_json(directory / file)
        names = content.get(key) if key else content
        if isinstance(names, dict) and names:
            return names
    return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


# -- Adapters of a model as a LoraSpec ------------------------------------------------------------


def infer_lora_spec(
    model: nn.Module, family: EncoderFamily, variant: LoraVariant, dropout: float
) -> LoraSpec | None:
    """Return the spec that produces exactly the adapters of this model.

    None if there is none: adapters differ in rank or scale, or are not on all layers of some roles
    in some blocks.
    """
    by_name = adapter_layers(model)
    count = len(blocks(model, family))
    names = {  # of the layers, by block and role
        (i, role): {f"{family.block_list}.{i}.{path}" for path in paths}
        for i in range(count)
        for role, paths in family.roles.items()
    }
    adapted = [key for key, paths in names.items() if paths & by_name.keys()]
    layers, roles = {i for i, _ in adapted}, {role for _, role in adapted}
    expected = {name for i in layers for role in roles for name in names[i, role]}
    settings = {(adapter.r, adapter.alpha) for adapter in by_name.values()}
    if expected != by_name.keys() or len(settings) != 1:
        return None
    [(r, alpha)] = settings
    try:
        return LoraSpec(
            variant=variant,
            r=r,
            alpha=alpha,
            dropout=dropout,
            targets=tuple(role for role in LayerRole if role in roles),
            layers=None if len(layers) == count else tuple(sorted(layers)),
            head=HeadMode.TRAIN,
        )
    except ValidationError:  # outside the limits of a spec
        return None


# -- Tensors of a PEFT adapter --------------------------------------------------------------------

# Others, such as float8, have no `isfinite`, or lose a part as float32.
_NUMBER_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_PEFT_NAMES = {"A": A, "B": B, "magnitude": MAGNITUDE}


def inject_and_load_peft_weights(
    model: nn.Module,
    family: EncoderFamily,
    config: AdapterConfig,
    tensors: dict[str, Tensor],
    missing: set[str],
) -> bool:
    """Load a PEFT state dict: add adapters to their layers, and copy full weights.

    `missing`: head layers that the base model does not have. Adapters on the head are merged,
    because an artifact stores a trained head in full. Returns whether the tensors are adapters and
    head only.

    Raises `AdapterTensorNamesMismatch` for unexpected or missing tensors, `AdapterShapeMismatch`.
    """
    remaining = dict(tensors)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and config.adapts(name):
            _load_adapter(model, name, layer, config, remaining)
    for name, adapter in adapter_layers(model).items():
        if name in family.head:
            adapter.merge()
            model.set_submodule(name, adapter.base)
    parameters = dict(model.named_parameters())
    for name, tensor in remaining.items():
        if name not in parameters:
            raise AdapterTensorNamesMismatch(problem="unexpected", names=TENSOR_PREFIX + name)
        _copy(parameters[name], tensor, name)
    if not_found := {name for name in missing if f"{name}.weight" not in remaining}:
        raise AdapterTensorNamesMismatch(
            problem="missing, here and in the base model", names=", ".join(not_found)
        )
    return all(name.rpartition(".")[0] in family.head_module_names for name in remaining)


def _load_adapter(
    model: nn.Module,
    name: str,
    layer: nn.Linear,
    config: AdapterConfig,
    remaining: dict[str, Tensor],
) -> None:
    r, alpha = config.rank(name), config.alpha(name)
    if config.variant is LoraVariant.DORA and config.use_rslora:
        alpha *= r**0.5  # here the scale of DoRA is alpha / r
    adapter = VARIANTS[config.variant](layer, r=r, alpha=alpha, dropout=config.lora_dropout)
    for part, parameter in adapter.named_adapter_parameters():
        key = f"{name}.{_PEFT_NAMES[part]}"
        if key not in remaining:
            raise AdapterTensorNamesMismatch(problem="missing", names=TENSOR_PREFIX + key)
        _copy(parameter, remaining.pop(key), key)
    model.set_submodule(name, adapter.eval())


@torch.no_grad()
def _copy(parameter: Tensor, value: Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        raise AdapterShapeMismatch(
            tensor=TENSOR_PREFIX + name, found=list(value.shape), expected=list(parameter.shape)
        )
    parameter.copy_(value)


# -- Import ---------------------------------------------------------------------------------------

GOLDEN_TEXTS = (  # their predictions are stored in the artifact
    "A warm, funny and quietly brilliant film that I did not want to end.",
    "Two hours of clumsy jokes and wooden acting; I nearly fell asleep.",
    "It is what it is.",
    "Please send the invoice again, the last one was for another customer.",
    "The delivery came two days late, but the people at the desk were kind and found it at once.",
    "No.",
    "Prices rose by 3.2% in May, more than had been expected.",
    "I would not say that it was bad, and I would not say that it was good either.",
)
_HOW_TEXTS_ARE_READ = ("long_texts", "prompt_format")  # in an export's settings and in `DataSpec`
_GOLDEN_PAIRS = tuple(zip(GOLDEN_TEXTS, reversed(GOLDEN_TEXTS), strict=True))


def import_adapter(  # noqa: PLR0913 - one parameter per option
    directory: Path,
    out: Path,
    *,
    base: str | None = None,
    labels: Sequence[str] = (),
    max_length: int | None = None,
    pairs: bool = False,
    task: TaskTypeOfTarget | None = None,
) -> dict[str, Any]:
    """Create the artifact `out` from a PEFT adapter and its base model. Returns the manifest.

    `base`, `labels` and `max_length` override the files. `pairs`: the model reads pairs of texts.
    `task`: what it predicts. Only the files of `lora_core.export` say both. Adapters that no
    `LoraSpec` describes, such as those with several ranks, are merged and not stored separately;
    the method is then `merged`.

    Raises all kinds of `AdapterError`, `UnsafeWeights`, `OutputExists`, `MergeMismatch`,
    `PairsInWindowsUnsupported`, and what `check_tokenizer_adds_special_tokens` and
    `resolve_base_or_artifact` raise.
    """
    config = peft_format.read_adapter_config(directory)
    tensors = _read_tensors(directory / WEIGHTS_FILE)
    bundled = directory.absolute() / manifest.BASE_DIR  # the path in the config is where it was
    if base is None and (bundled / "config.json").is_file():
        base = str(bundled)
    name = base or config.base_model_name_or_path
    if not name:
        raise AdapterBaseNotNamed()
    pretrained = resolve_base_or_artifact(name, None if base else config.revision)
    names = resolve_adapter_labels(directory, pretrained, tensors, labels)
    length = resolve_adapter_max_length(directory, pretrained, max_length)
    usage = read_exported_model_settings(directory)
    if task not in (None, usage.task.type):
        reading = usage.model_dump(include={"text_pairs", *_HOW_TEXTS_ARE_READ})
        usage = ExportedModelSettings.model_validate({**reading, "task": {"type": task}})
    stored_names = resolve_adapter_labels(directory, pretrained, tensors, ())
    restored, calibration = _read_task(usage, names, stored_names)
    pairs = pairs or usage.text_pairs
    data = DataSpec(
        text_pair_column="text_pair" if pairs else None,
        long_texts=usage.long_texts,
        prompt_format=usage.prompt_format,
    )
    check_no_windowed_pairs(data)
    tokenizer_file = resolve_adapter_tokenizer_file(directory, pretrained)
    tokenizer = load_tokenizer(tokenizer_file)
    owner = directory.name if tokenizer_file.parent == directory else pretrained.name
    check_tokenizer_adds_special_tokens(tokenizer, owner, pairs=pairs)

    model, missing = load_with_saved_head(pretrained, names, restored.problem_type)
    base_sha256 = encoder_weights_sha256(model, pretrained.family)
    is_adapter_only = inject_and_load_peft_weights(
        model.eval(), pretrained.family, config, tensors, missing
    )
    _take_out_calibration(model, pretrained.family, restored, calibration)
    spec = (
        infer_lora_spec(model, pretrained.family, config.variant, config.lora_dropout)
        if is_adapter_only
        else None
    )
    with atomic_directory(out) as folder:
        texts = _GOLDEN_PAIRS if pairs else GOLDEN_TEXTS
        unmerged = _predict(model, tokenizer, length, texts, data)
        if spec is not None:
            artifact.save_base_adapter_and_head(folder, model, pretrained.family, tokenizer, spec)
        else:
            merge_adapters(model)
            artifact.save_merged_model(folder, model, tokenizer, length, pairs=pairs)
        loaded = artifact.load_merged_model(folder)  # from the files, so that this checks them too
        merged = _predict(loaded, tokenizer, length, texts, data)
        save_golden_predictions(folder, texts, merged)
        difference = artifact.check_merged_logits(unmerged, merged)
        facts = {
            "format": manifest.FORMAT_VERSION,
            "created_by": {"loraworks": __version__, "import": "peft"},
            "spec": {
                "base": pretrained.name,
                "base_revision": pretrained.commit,
                "method": _method(spec),
                "task": usage.task.model_dump(mode="json"),
                "data": data.model_dump(
                    mode="json", include={"text_pair_column", *_HOW_TEXTS_ARE_READ}
                ),
            },
            "encoder": pretrained.family.model_type,
            "base_sha256": base_sha256,
            "merged_sha256": weights_sha256(loaded.state_dict()),
            "labels": names,
            "calibration": calibration.model_dump(mode="json"),
            "max_length": length,
            "metrics": {"labels": names, "merge_difference": difference},
        }
        return manifest.create_and_save(folder, facts)


def _read_task(
    usage: ExportedModelSettings, labels: Sequence[str], stored_names: Sequence[str]
) -> tuple[Task, Calibration]:
    """Return the task, and the calibration: what the head of an export does not have.

    `stored_names`: what the files call the `labels`. Raises `ArtifactCorrupt`,
    `AdapterLabelCountMismatch`.
    """
    if isinstance(usage.task, RegressionSpec) and len(labels) != 1:
        raise AdapterLabelCountMismatch(given=1, count=len(labels))
    thresholds = _thresholds(usage, stored_names, labels) if usage.thresholds else ()
    fitted = usage.fitted
    if isinstance(usage.task, MultiLabelSpec) and not thresholds:
        fitted, thresholds = False, (DEFAULT_THRESHOLD,) * len(labels)
    size = 0 if isinstance(usage.task, SingleLabelSpec) else len(labels)
    calibration = Calibration(
        fitted=fitted,
        scale=(usage.folded_scale,) * size,
        offset=(usage.folded_offset,) * size,
        thresholds=thresholds,
        half_width=usage.half_width,
    )
    return restore_task_and_calibration(
        {"spec": {"task": usage.task.model_dump()}, "calibration": calibration.model_dump()}, labels
    )


def _thresholds(usage: ExportedModelSettings, *names_of_labels: Sequence[str]) -> tuple[float, ...]:
    """Return the thresholds in the order of the labels, by the first names that they fit.

    Raises `ArtifactCorrupt`.
    """
    thresholds = {normalize_label_name(name): each for name, each in usage.thresholds.items()}
    for names in names_of_labels:
        if thresholds.keys() == set(names):
            return tuple(thresholds[name] for name in names)
    problem = "its thresholds are not those of the labels"
    raise ArtifactCorrupt(path=USAGE_FILE, problem=problem)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors in float32, by their names in the model.

    Raises `SafetensorsHeaderTooLarge`, `AdapterNotFound`, `AdapterTensorNamesMismatch`,
    `AdapterNotFinite`.
    """
    check_safetensors_header(path)
    try:
        stored = load_file(path)
    except SafetensorError as error:
        problem = f"{WEIGHTS_FILE} cannot be read ({error})"
        raise AdapterNotFound(path=path.parent.name, problem=problem) from error
    for key, tensor in stored.items():
        if not key.startswith(TENSOR_PREFIX):
            raise AdapterTensorNamesMismatch(problem="unexpected", names=key)
        if tensor.dtype not in _NUMBER_TYPES:
            problem = f"{WEIGHTS_FILE} has a tensor of {tensor.dtype}; save it as float32"
            raise AdapterNotFound(path=path.parent.name, problem=problem)
        if not torch.isfinite(tensor).all():
            raise AdapterNotFinite(tensor=key)
    return {key.removeprefix(TENSOR_PREFIX): tensor.float() for key, tensor in stored.items()}


@torch.no_grad()
def _take_out_calibration(
    model: PreTrainedModel, family: EncoderFamily, task: Task, calibration: Calibration
) -> None:
    """Make the calibrated logits of an exported head plain ones again, which are of size 1."""
    scale, offset = (torch.from_numpy(each).float() for each in task.scale_and_offset(calibration))
    last = get_linear_submodule(model, family.head[-1])
    last.weight /= scale[:, None]
    last.bias.sub_(offset).div_(scale)


def _predict(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    max_length: int,
    texts: Sequence[TextInput],
    data: DataSpec,
) -> NDArray[np.float32]:
    """Return the logits (texts, labels) of texts, or of pairs."""
    predictor = Predictor.from_model(
        model,
        tokenizer,
        max_length,
        pairs=data.text_pair_column is not None,
        windows=data.long_texts == "windows",
    )
    return predictor.forward(predictor.encode(texts)).numpy()


def _method(spec: LoraSpec | None) -> dict[str, Any]:
    return {"type": "merged"} if spec is None else spec.model_dump(mode="json")
