"""One training run, described in full."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lora_core.specs.base import BaseName
from lora_core.specs.data import DataSpec
from lora_core.specs.frozen import Float, Frozen, Int
from lora_core.specs.method import (
    AutoSpec,
    EncoderMethod,
    Head,
    LinearSpec,
    LoraSpec,
    MethodSpec,
    OneMethod,
)
from lora_core.specs.patterns import DEVICE, REVISION
from lora_core.specs.pooling import Pooling
from lora_core.specs.presets import Preset, unfolded
from lora_core.specs.task import ClassWeights, SequenceClassificationSpec, TaskSpec


class SelectBy(StrEnum):
    """Which checkpoint is kept: the best one by a validation metric, or the last."""

    LAST = "last"
    MACRO_F1 = "macro_f1"
    ACCURACY = "accuracy"
    LOSS = "loss"


class HeadInit(StrEnum):
    """What the classification head starts from."""

    AUTO = "auto"  # probe where LoRA trains a head that the base does not bring
    PROBE = "probe"  # logistic regression on the pooled states of the base
    RANDOM = "random"  # that of the base if it has one for these labels, else drawn at random


class OptimSpec(Frozen):
    """AdamW with warm-up and decay.

    An update sees `batch_size` texts. They are computed in micro-batches of texts of like length,
    each of at most `micro_batch_tokens` padded tokens, whose gradients add up.

    What is None is chosen by method, base and number of training texts (`defaults.py`).
    """

    epochs: Int | None = Field(default=None, ge=1, le=1000)
    learning_rate: Float | None = Field(default=None, gt=0, le=1e10)
    head_learning_rate: Float | None = Field(default=None, gt=0, le=1e10)
    batch_size: Int | None = Field(default=None, ge=1, le=4096)
    micro_batch_tokens: Int = Field(default=4096, ge=16, le=1_048_576)
    warmup: Float = Field(default=0.06, ge=0, le=1)  # share of all steps
    decay: Literal["linear", "cosine", "none"] = "linear"
    weight_decay: Float = Field(default=0.01, ge=0, le=1)
    max_grad_norm: Float = Field(default=1.0, gt=0, le=1e6)
    encoder_dropout: Float = Field(default=0.0, ge=0, lt=1)  # above 0 costs 2-3x on CPU
    head_dropout: Float = Field(default=0.1, ge=0, lt=1)


class StopSpec(Frozen):
    """Which checkpoint is kept, and when to stop early."""

    select_by: SelectBy | None = None  # by the number of validation texts (`defaults.select_by`)
    evaluations_per_epoch: Int = Field(default=2, ge=1, le=100)
    patience: Int | None = Field(default=None, ge=1, le=1000)  # evaluations without a better one

    @model_validator(mode="after")
    def _a_metric_for_patience(self) -> "StopSpec":
        if self.select_by is SelectBy.LAST and self.patience is not None:
            raise ValueError("with select_by 'last' nothing is better: leave patience out")
        return self


class RuntimeSpec(Frozen):
    """Where it is computed, and how. On CPU, seed and threads fix the loss curve bit for bit."""

    device: str = Field(default="auto", pattern=DEVICE)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: Int | None = Field(default=None, ge=1, le=1024)  # None: set when the run first starts
    seed: Int = Field(default=0, ge=0, lt=2**32)
    gradient_checkpointing: StrictBool = False  # states inside a block are computed again, not kept


class TrialSpec(Frozen):
    """The beginning of a run, to compare runs before they are through.

    It leaves figures of the last weights on validation and a checkpoint to go on from, no model.
    """

    share: Float = Field(gt=0, lt=1)  # of all steps; rates are those of the whole run
    validation_texts: Int | None = Field(default=None, ge=1)  # drawn; None: all


class ResultSpec(Frozen):
    """What a whole run leaves besides the figures on validation and test."""

    train_figures: StrictBool = False  # those of the best weights on the training part, too
    cross_validation: StrictBool = True  # judge by it with few texts (`verdict.FEW_TEXTS`)
    model: StrictBool = True  # else figures and answers alone; its last checkpoint has the weights


class TrainSpec(Frozen):
    """One training run. Nothing but the data needs to be said.

    `preset` gives many settings at once; those that are given beside it win.

    `base` is the packaged sample (`minilm-l6`), a directory (`./…`, `../…` or `/…`, safetensors
    only), or a name on the hub. A service also takes one of its own model versions. The method
    `linear` has none: there `base` and `base_revision` are null whatever is given, and `pooling`,
    `head_init`, `optim`, `stop`, `data.max_length` and the precision mean nothing.
    """

    spec_version: Literal[1] = 1  # raised when the meaning of a field changes
    preset: Preset | None = None
    method: MethodSpec = AutoSpec()
    base: BaseName | None = Field(default="minilm-l6", validate_default=True)
    base_revision: str | None = Field(default=None, pattern=REVISION)
    pooling: Pooling = Pooling.AUTO
    head_init: HeadInit = HeadInit.AUTO
    data: DataSpec = DataSpec()
    task: TaskSpec = SequenceClassificationSpec()
    optim: OptimSpec = OptimSpec()
    stop: StopSpec = StopSpec()
    runtime: RuntimeSpec = RuntimeSpec()
    result: ResultSpec = ResultSpec()
    trial: TrialSpec | None = None  # None: the whole run

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, said: Any) -> Any:
        return unfolded(said) if isinstance(said, dict) else said

    @field_validator("base", "base_revision", mode="before")
    @classmethod
    def _null_without_encoder(cls, value: Any, info: ValidationInfo) -> Any:
        return None if isinstance(info.data.get("method"), LinearSpec) else value

    @field_validator("base")
    @classmethod
    def _given_for_encoder(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and not isinstance(info.data.get("method"), LinearSpec):
            raise PydanticCustomError("string_type", "must be a text, not null")
        return value

    @field_validator("stop")
    @classmethod
    def _left_out_with_auto(cls, value: StopSpec, info: ValidationInfo) -> StopSpec:
        if isinstance(info.data.get("method"), AutoSpec) and value != StopSpec():
            raise ValueError("the method auto selects by cross-validation: leave stop out")
        return value

    @model_validator(mode="after")
    def _a_head_that_can_be_fitted(self) -> "TrainSpec":
        lora = isinstance(self.method, LoraSpec) and self.method.head is Head.LORA
        if self.head_init is HeadInit.PROBE and lora:
            raise ValueError(
                "head_init 'probe' cannot start a head with an adapter (method.head 'lora'): train "
                "or freeze the head, or leave head_init out"
            )
        return self

    @property
    def encoder_base(self) -> str:
        """The base of a method that has one. Raises `TypeError` for `linear`."""
        if self.base is None:
            raise TypeError(f"{self.method.type} has no base")
        return self.base

    @property
    def encoder_method(self) -> EncoderMethod:
        """The method, if it is one that trains on a base. Raises `TypeError` for others."""
        if isinstance(self.method, AutoSpec | LinearSpec):
            raise TypeError(f"{self.method.type} trains no encoder")
        return self.method

    @property
    def balanced(self) -> bool:
        """Whether every label counts as much as any other."""
        own = getattr(self.method, "class_weight", None)
        return own is not None or self.task.class_weights is ClassWeights.BALANCED

    def of(self, method: OneMethod) -> "TrainSpec":
        """The same run with this method."""
        without = {"base": None, "base_revision": None} if method.type == "linear" else {}
        return self.model_copy(update={"method": method, **without})
