"""The description of a training run."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import DataSpec
from lora_core.specs.fields import (
    DEVICE_PATTERN,
    REVISION_PATTERN,
    BaseName,
    Float,
    FrozenModel,
    Int,
)
from lora_core.specs.method import (
    SKLEARN_METHODS,
    AutoSpec,
    EncoderMethod,
    HeadMode,
    LinearSpec,
    LoraSpec,
    MethodSpec,
    ProbeSpec,
    SingleMethod,
)
from lora_core.specs.pooling import Pooling
from lora_core.specs.task import (
    ClassWeights,
    LossName,
    MultiLabelSpec,
    RegressionSpec,
    SeveralTargetsSpec,
    SingleLabelSpec,
    TaskSpec,
)

MAX_EPOCHS = 1000


class SelectBy(StrEnum):
    """Which checkpoint to keep: the best by a validation metric, or the last."""

    LAST = "last"
    MACRO_F1 = "macro_f1"
    ACCURACY = "accuracy"  # of a multi-label task: the share of texts with exactly the right labels
    RMSE = "rmse"  # of a regression
    SKILL = "skill"  # of several targets
    LOSS = "loss"


SELECT_BY_CHOICES: Mapping[str, tuple[SelectBy, ...]] = {
    "single_label": (SelectBy.LAST, SelectBy.MACRO_F1, SelectBy.ACCURACY, SelectBy.LOSS),
    "multi_label": (SelectBy.LAST, SelectBy.MACRO_F1, SelectBy.ACCURACY, SelectBy.LOSS),
    "regression": (SelectBy.LAST, SelectBy.RMSE, SelectBy.LOSS),
    "several_targets": (SelectBy.LAST, SelectBy.SKILL, SelectBy.LOSS),
}


class HeadInit(StrEnum):
    """How the classification head is initialized."""

    AUTO = "auto"  # probe if LoRA trains a head that does not come with the base model
    PROBE = "probe"  # logistic regression on the pooled states of the base model
    RANDOM = "random"  # the head of the base model if it has these labels, else random


class OptimSpec(FrozenModel):
    """AdamW with warmup and decay.

    One update processes `batch_size` texts. They are computed in micro-batches of texts of similar
    length, each of at most `micro_batch_tokens` tokens including padding, whose gradients are
    accumulated.

    Fields that are None are resolved by method, base model and number of training texts
    (`resolve_defaults.py`).
    """

    epochs: Int | None = Field(default=None, ge=1, le=MAX_EPOCHS)
    learning_rate: Float | None = Field(default=None, gt=0, le=1e10)
    head_learning_rate: Float | None = Field(default=None, gt=0, le=1e10)
    batch_size: Int | None = Field(default=None, ge=1, le=4096)
    micro_batch_tokens: Int = Field(default=4096, ge=16, le=1_048_576)
    warmup: Float = Field(default=0.06, ge=0, le=1)  # share of all steps
    decay: Literal["linear", "cosine", "none"] = "linear"
    weight_decay: Float = Field(default=0.01, ge=0, le=1)
    max_grad_norm: Float = Field(default=1.0, gt=0, le=1e6)
    encoder_dropout: Float = Field(default=0.0, ge=0, lt=1)  # a value above 0 costs 2-3x on CPU
    head_dropout: Float = Field(default=0.1, ge=0, lt=1)


class CheckpointSelectionAndStopSpec(FrozenModel):
    """Which checkpoint to keep, and when to stop early."""

    # None: by number of validation texts (`resolve_checkpoint_selection`)
    select_by: SelectBy | None = None
    evaluations_per_epoch: Int = Field(default=2, ge=1, le=100)
    patience: Int | None = Field(default=None, ge=1, le=1000)  # evaluations without improvement

    @model_validator(mode="after")
    def _patience_needs_metric(self) -> "CheckpointSelectionAndStopSpec":
        if self.select_by is SelectBy.LAST and self.patience is not None:
            raise ValueError("patience has no meaning with select_by 'last': omit it")
        return self


class RuntimeSpec(FrozenModel):
    """Where and how the run computes. On CPU, seed and threads determine the loss curve bit for
    bit."""

    device: str = Field(default="auto", pattern=DEVICE_PATTERN)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # None: chosen when the run first starts
    threads: Int | None = Field(default=None, ge=1, le=1024)
    seed: Int = Field(default=0, ge=0, lt=2**32)
    # recompute activations in the backward pass instead of storing them
    gradient_checkpointing: StrictBool = False


class PartialRunSpec(FrozenModel):
    """The first steps of a run, to compare runs before they are complete.

    A trial reports metrics of the last weights on validation and leaves a checkpoint to resume
    from, but no model.
    """

    # of all steps; the learning rate schedule is that of the complete run
    budget: Float = Field(gt=0, lt=1)
    # a random subset of this size; None: all
    validation_texts: Int | None = Field(default=None, ge=1)


class RunOutputSpec(FrozenModel):
    """What a complete run produces besides the metrics on validation and test."""

    train_metrics: StrictBool = False  # also metrics of the best weights on the train split
    # for the verdict, if there are few texts (`verdict.CROSS_VALIDATION_MAX_TEXTS`)
    cross_validation: StrictBool = True
    # False: only metrics and predictions; the last checkpoint has the weights
    model: StrictBool = True


# -- Presets: many settings under one name; those in the spec itself override them ----------------

_SpecDict = dict[str, Any]


class Preset(StrEnum):
    """Named sets of settings."""

    SEED = "seed"  # the "LoRA from scratch" lessons


PRESETS: Mapping[Preset, _SpecDict] = {
    Preset.SEED: {
        "pooling": "cls",
        "head_init": "random",
        "method": {
            "type": "lora",
            "variant": "unscaled",
            "r": 8,
            "alpha": 16.0,
            "targets": ["query", "value"],
            "head": "frozen",
        },
        "optim": {
            "epochs": 3,
            "learning_rate": 5e-5,
            "batch_size": 12,
            "warmup": 0.0,
            "decay": "none",
            "weight_decay": 0.0,
            "max_grad_norm": 1e6,  # no clipping
            "encoder_dropout": 0.1,  # as DistilBERT's config has it
            "head_dropout": 0.2,
        },
        "stop": {"select_by": "accuracy", "evaluations_per_epoch": 1},
    },
}


def apply_preset(spec: Mapping[str, Any]) -> _SpecDict:
    """Return the spec with the settings of its preset, unchanged without a known one."""
    name = spec.get("preset")
    if name not in list(Preset):
        return dict(spec)
    merged = dict(spec)
    for section, settings in PRESETS[Preset(name)].items():
        if not isinstance(settings, Mapping):
            merged.setdefault(section, settings)
            continue
        explicit = merged.get(section, {})
        if isinstance(explicit, Mapping) and explicit.get("type") in (None, settings.get("type")):
            merged[section] = {**settings, **explicit}
    return merged


# -- The whole spec -------------------------------------------------------------------------------

_RENAMED_IN_VERSION_2 = {"result": ("train_figures", "train_metrics"), "trial": ("share", "budget")}


def _upgrade(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the description with the field names of this version.

    Artifacts, checkpoints and saved files of version 1 stay readable.
    """
    if spec.get("spec_version") != 1:
        return spec
    upgraded = {**spec, "spec_version": 2}
    for part, (old, new) in _RENAMED_IN_VERSION_2.items():
        if isinstance(fields := spec.get(part), dict):
            upgraded[part] = {new if name == old else name: fields[name] for name in fields}
    return upgraded


class TrainSpec(FrozenModel):
    """A training run. All fields have defaults.

    `preset` sets many fields at once; fields that are given explicitly override it.

    `base` is the packaged sample (`minilm-l6`), a directory (`./…`, `../…` or `/…`, safetensors
    only), or a name on the hub. A service also accepts one of its own model versions. The method
    `linear` has no base model: `base` and `base_revision` are then always null, and `pooling`,
    `head_init`, `optim`, `stop`, `data.max_length` and the precision are ignored.
    """

    spec_version: Literal[2] = 2  # incremented when a field is renamed or changes its meaning
    preset: Preset | None = None
    method: MethodSpec = Field(default_factory=AutoSpec, description="Default: `auto`.")
    base: BaseName | None = Field(default="minilm-l6", validate_default=True)
    base_revision: str | None = Field(default=None, pattern=REVISION_PATTERN)
    pooling: Pooling = Pooling.AUTO
    head_init: HeadInit = HeadInit.AUTO
    data: DataSpec = DataSpec()
    task: TaskSpec = Field(
        default_factory=SingleLabelSpec, description="Default: one label for each text."
    )
    optim: OptimSpec = OptimSpec()
    stop: CheckpointSelectionAndStopSpec = CheckpointSelectionAndStopSpec()
    runtime: RuntimeSpec = RuntimeSpec()
    result: RunOutputSpec = RunOutputSpec()
    trial: PartialRunSpec | None = None  # None: the complete run

    @model_validator(mode="before")
    @classmethod
    def _upgrade_and_apply_preset(cls, value: Any) -> Any:
        return apply_preset(_upgrade(value)) if isinstance(value, dict) else value

    @field_validator("base", "base_revision", mode="before")
    @classmethod
    def _no_base_for_linear(cls, value: Any, info: ValidationInfo) -> Any:
        return None if isinstance(info.data.get("method"), LinearSpec) else value

    @field_validator("base")
    @classmethod
    def _base_required_for_encoder(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and not isinstance(info.data.get("method"), LinearSpec):
            raise PydanticCustomError("string_type", "must be a string, not null")
        return value

    @field_validator("stop")
    @classmethod
    def _no_stop_for_auto(
        cls, value: CheckpointSelectionAndStopSpec, info: ValidationInfo
    ) -> CheckpointSelectionAndStopSpec:
        if (
            isinstance(info.data.get("method"), AutoSpec)
            and value != CheckpointSelectionAndStopSpec()
        ):
            raise ValueError("the method auto selects by cross-validation: omit stop")
        return value

    @field_validator("task")
    @classmethod
    def _labels_in_several_forms(cls, value: TaskSpec, info: ValidationInfo) -> TaskSpec:
        data = info.data.get("data", DataSpec())
        of_one_target = (data.label_separator, data.label_columns, data.label_column) != (
            None,
            None,
            DataSpec().label_column,
        )
        if isinstance(value, SeveralTargetsSpec) and of_one_target:
            raise ValueError("each target has its own column: omit the label columns of data")
        if not isinstance(value, MultiLabelSpec) and (data.label_separator or data.label_columns):
            raise ValueError("data.label_separator and data.label_columns need type 'multi_label'")
        return value

    @field_validator("task")
    @classmethod
    def _focal_loss_trains(cls, value: TaskSpec, info: ValidationInfo) -> TaskSpec:
        tasks = value.targets.values() if isinstance(value, SeveralTargetsSpec) else (value,)
        focal = any(getattr(task, "loss", None) is LossName.FOCAL for task in tasks)
        if focal and isinstance(method := info.data.get("method"), LinearSpec | ProbeSpec):
            raise ValueError(f"{method.type} is fitted with cross-entropy: omit loss")
        return value

    @field_validator("task")
    @classmethod
    def _no_class_weight_for_numbers(cls, value: TaskSpec, info: ValidationInfo) -> TaskSpec:
        if isinstance(value, RegressionSpec) and getattr(
            info.data.get("method"), "class_weight", None
        ):
            raise ValueError("a regression has no labels to weight: omit method.class_weight")
        return value

    @model_validator(mode="after")
    def _probe_needs_trained_head(self) -> "TrainSpec":
        lora = isinstance(self.method, LoraSpec) and self.method.head is HeadMode.LORA
        if self.head_init is HeadInit.PROBE and lora:
            raise ValueError(
                "head_init 'probe' cannot initialize a head with an adapter (method.head 'lora'): "
                "train or freeze the head, or omit head_init"
            )
        return self

    @property
    def encoder_base(self) -> str:
        """The base model. Raises `TypeError` for the method `linear`."""
        if self.base is None:
            raise TypeError(f"{self.method.type} has no base model")
        return self.base

    @property
    def encoder_method(self) -> EncoderMethod:
        """The method, if it trains on a base model. Raises `TypeError` for others."""
        if isinstance(self.method, AutoSpec | LinearSpec):
            raise TypeError(f"{self.method.type} trains no encoder")
        return self.method

    @property
    def balanced(self) -> bool | Mapping[str, bool]:
        """Whether labels are weighted inversely to their frequency; of several targets, by name."""
        by_method = getattr(self.method, "class_weight", None) is not None
        if isinstance(self.task, SeveralTargetsSpec):
            return {
                name: by_method or _is_balanced(task) for name, task in self.task.targets.items()
            }
        return by_method or _is_balanced(self.task)

    def with_prompt_format(self, prompt_format: PromptFormat | None) -> "TrainSpec":
        """Return the same run with the format that its prompts have."""
        data = self.data.model_copy(update={"prompt_format": prompt_format})
        return self.model_copy(update={"data": data})

    def with_task(self, task: TaskSpec) -> "TrainSpec":
        """Return the same run for a task. Raises `ValidationError` if its settings do not fit."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return TrainSpec(**{**given, "task": task})

    def with_method(self, method: SingleMethod) -> "TrainSpec":
        """Return the same run with another method."""
        without: dict[str, Any] = {}
        if method.type == "linear":
            without = {"base": None, "base_revision": None}
        if method.type in SKLEARN_METHODS:
            without["task"] = _with_cross_entropy(self.task)
        return self.model_copy(update={"method": method, **without})


def _is_balanced(task: TaskSpec) -> bool:
    return getattr(task, "class_weights", ClassWeights.NONE) is ClassWeights.BALANCED


def _with_cross_entropy(task: TaskSpec) -> TaskSpec:
    match task:
        case RegressionSpec():
            return task
        case SeveralTargetsSpec():
            targets = {name: _with_cross_entropy(each) for name, each in task.targets.items()}
            return task.model_copy(update={"targets": targets})
        case _:
            plain = {"loss": LossName.CROSS_ENTROPY, "focal_gamma": None}
            return task.model_copy(update=plain)
