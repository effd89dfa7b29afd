"""Defaults that depend on the `config.json` of the base and on the number of texts."""

import math
from collections.abc import Mapping

from lora_core.compatibility import EncoderShape
from lora_core.specs.data import Split
from lora_core.specs.method import (
    EncoderMethod,
    FullFineTuningSpec,
    HeadMode,
    LastLayersBaselineSpec,
    LoraSpec,
    LoraVariant,
    ProbeSpec,
)
from lora_core.specs.task import TaskSpec
from lora_core.specs.train import (
    CheckpointSelectionAndStopSpec,
    HeadInit,
    OptimSpec,
    SelectBy,
    TrainSpec,
)

MIN_UPDATES = 60  # per run: with fewer, a model learns little from a few hundred texts
SMALL_BATCH_MAX_TEXTS = 500  # up to this many training texts, the batch size is 16 instead of 32
_FULL_RATE_MIN_TEXTS = 256  # from this many training texts on, LoRA trains at its full rate
HEAD_INIT_MAX_TEXTS = 4000  # in the stratified sample that the initial head is fitted on
BEST_CHECKPOINT_MIN_TEXTS = 100  # with fewer validation texts, the best checkpoint is mostly luck


def default_learning_rate(method: EncoderMethod, width: int) -> float:
    """Return a learning rate that works well: for LoRA, 10 to 20 times that of full fine-tuning.

    `width` is the hidden size of the base; wider bases need smaller rates. `unscaled` moves its
    weights many times further at the same alpha, so it gets the rate that it was designed with.
    """
    small = width < 512
    match method:
        case LoraSpec(variant=LoraVariant.UNSCALED):
            return 5e-5
        case LoraSpec():
            return 1.5e-3 if small else 5e-4
        case LastLayersBaselineSpec(blocks=0):
            return 1e-3
        case _:
            return 1e-4 if small else 5e-5


def resolve_learning_rates(
    spec: TrainSpec, width: int, texts: int | None = None
) -> tuple[float, float]:
    """Return the learning rates of the encoder and of the head.

    Adapters need a higher rate than full fine-tuning. A head that was initialized by the probe does
    not: each step moves its logits far. With few training texts, its adapters do not either: a
    model that already classifies would memorize the texts long before the run ends.
    """
    rate, full_rate = (
        default_learning_rate(m, width) for m in (spec.encoder_method, FullFineTuningSpec())
    )
    from_probe = resolve_head_init(spec) is HeadInit.PROBE
    lower = from_probe and isinstance(spec.method, LoraSpec) and rate > full_rate
    if lower and texts is not None:
        rate *= math.sqrt(min(1, max(1, texts) / _FULL_RATE_MIN_TEXTS))
    encoder_rate = spec.optim.learning_rate or rate
    head_rate = encoder_rate * min(1, full_rate / rate) if lower else encoder_rate
    return encoder_rate, spec.optim.head_learning_rate or head_rate


def resolve_epochs_and_batch_size(optim: OptimSpec, texts: int) -> tuple[int, int]:
    """Return epochs and batch size for this number of training texts, unless the spec has them."""
    batch_size = optim.batch_size or (16 if texts <= SMALL_BATCH_MAX_TEXTS else 32)
    updates_per_epoch = math.ceil(max(1, texts) / batch_size)
    epochs = optim.epochs or min(1000, max(2, math.ceil(MIN_UPDATES / updates_per_epoch)))
    return epochs, batch_size


_SELECT_BY = {  # with enough validation texts
    "single_label": SelectBy.MACRO_F1,
    "multi_label": SelectBy.MACRO_F1,
    "regression": SelectBy.RMSE,
    "several_targets": SelectBy.SKILL,
}


def resolve_checkpoint_selection(
    stop: CheckpointSelectionAndStopSpec, texts: int, task: TaskSpec
) -> CheckpointSelectionAndStopSpec:
    """Choose how to select the checkpoint, given the number of validation texts."""
    too_few = texts < BEST_CHECKPOINT_MIN_TEXTS and stop.patience is None
    select_by = stop.select_by or (SelectBy.LAST if too_few else _SELECT_BY[task.type])
    return stop.model_copy(update={"select_by": select_by})


def resolve_head_init(spec: TrainSpec) -> HeadInit:
    """Return how to initialize the head: by default the probe, if LoRA trains the head in full.

    Full fine-tuning and a head that is trained alone gain nothing from it.
    """
    if spec.head_init is not HeadInit.AUTO:
        return spec.head_init
    match spec.method:
        case ProbeSpec() | LoraSpec(head=HeadMode.TRAIN):
            return HeadInit.PROBE
        case _:
            return HeadInit.RANDOM


def resolve_defaults(
    spec: TrainSpec, shape: EncoderShape, texts: Mapping[Split, int] | None = None
) -> tuple[TrainSpec, float, int]:
    """Return the spec with all defaults filled in, the learning rate, and max_length in tokens.

    `texts` is the size of each split; None leaves open what depends on it.
    """
    rate, head_rate = resolve_learning_rates(
        spec, shape.width, texts[Split.TRAIN] if texts else None
    )
    max_length = shape.resolve_max_length(spec.data.max_length)
    optim, stop = spec.optim, spec.stop
    if texts is not None:
        epochs, batch_size = resolve_epochs_and_batch_size(optim, texts[Split.TRAIN])
        optim = optim.model_copy(update={"epochs": epochs, "batch_size": batch_size})
        stop = resolve_checkpoint_selection(stop, texts[Split.VALIDATION], spec.task)
    update = {
        "pooling": shape.pooling,
        "head_init": resolve_head_init(spec),
        "stop": stop,
        "data": spec.data.model_copy(update={"max_length": max_length}),
        "optim": optim.model_copy(update={"learning_rate": rate, "head_learning_rate": head_rate}),
    }
    return spec.model_copy(update=update), rate, max_length
