"""What a description leaves open: decided by `config.json` of its base and the number of texts."""

import math
from collections.abc import Mapping

from lora_core.compatibility import Shape
from lora_core.specs.data import Split
from lora_core.specs.method import (
    BaselineSpec,
    EncoderMethod,
    FullSpec,
    Head,
    LoraSpec,
    ProbeSpec,
    Variant,
)
from lora_core.specs.train import HeadInit, OptimSpec, SelectBy, StopSpec, TrainSpec

LEAST_UPDATES = 60  # of a run: with fewer, a few hundred texts teach little
FEW_TEXTS = 500  # up to so many, updates see 16 texts instead of 32
ENOUGH_TEXTS = 256  # from so many on, LoRA trains at its full rate
HEAD_INIT_TEXTS = 4000  # at most so many, in balance, for the fit that a head starts from
FEW_VALIDATION_TEXTS = 100  # with fewer, the best checkpoint is the luckiest one


def learning_rate(method: EncoderMethod, width: int) -> float:
    """A rate that trains well: LoRA takes ten to twenty times that of full fine-tuning.

    `width` is the hidden size of the base; wider bases take smaller rates. `unscaled` moves its
    weights many times further at the same alpha, so it takes the rate it was made with.
    """
    small = width < 512
    match method:
        case LoraSpec(variant=Variant.UNSCALED):
            return 5e-5
        case LoraSpec():
            return 1.5e-3 if small else 5e-4
        case BaselineSpec(blocks=0):
            return 1e-3
        case _:
            return 1e-4 if small else 5e-5


def rates(spec: TrainSpec, width: int, texts: int | None = None) -> tuple[float, float]:
    """The learning rates of the encoder and of the head, as given or by what else the spec says.

    Adapters take a higher rate than full fine-tuning. With a head from the probe, whose logits move
    far with each step, the head does not. Nor do the adapters on few training texts, which a model
    that classifies already has learned by heart long before the run ends.
    """
    usual, of_full = (learning_rate(m, width) for m in (spec.encoder_method, FullSpec()))
    fitted = head_init(spec) is HeadInit.PROBE
    careful = fitted and isinstance(spec.method, LoraSpec) and usual > of_full
    if careful and texts is not None:
        usual *= math.sqrt(min(1, max(1, texts) / ENOUGH_TEXTS))
    rate = spec.optim.learning_rate or usual
    head_rate = rate * min(1, of_full / usual) if careful else rate
    return rate, spec.optim.head_learning_rate or head_rate


def schedule(optim: OptimSpec, texts: int) -> tuple[int, int]:
    """Epochs and batch size for so many training texts: as given, else chosen by their number."""
    batch_size = optim.batch_size or (16 if texts <= FEW_TEXTS else 32)
    updates = math.ceil(max(1, texts) / batch_size)  # of an epoch
    epochs = optim.epochs or min(1000, max(2, math.ceil(LEAST_UPDATES / updates)))
    return epochs, batch_size


def selection(stop: StopSpec, texts: int) -> StopSpec:
    """Which checkpoint is kept with so many validation texts, where it was left open."""
    lucky = texts < FEW_VALIDATION_TEXTS and stop.patience is None
    select_by = stop.select_by or (SelectBy.LAST if lucky else SelectBy.MACRO_F1)
    return stop.model_copy(update={"select_by": select_by})


def head_init(spec: TrainSpec) -> HeadInit:
    """What the head starts from: as given, else the probe where LoRA trains it in full.

    Full fine-tuning and a head that is trained alone get no further from there.
    """
    if spec.head_init is not HeadInit.AUTO:
        return spec.head_init
    match spec.method:
        case ProbeSpec() | LoraSpec(head=Head.TRAIN):
            return HeadInit.PROBE
        case _:
            return HeadInit.RANDOM


def settled(
    spec: TrainSpec, shape: Shape, texts: Mapping[Split, int] | None = None
) -> tuple[TrainSpec, float, int]:
    """The same spec with everything decided that base and data decide.

    `texts`: the size of each part; None leaves open what depends on it. Also returns the learning
    rate and max_length.
    """
    rate, head_rate = rates(spec, shape.width, texts[Split.TRAIN] if texts else None)
    length = shape.max_length(spec.data.max_length)
    optim, stop = spec.optim, spec.stop
    if texts is not None:
        epochs, batch_size = schedule(optim, texts[Split.TRAIN])
        optim = optim.model_copy(update={"epochs": epochs, "batch_size": batch_size})
        stop = selection(stop, texts[Split.VALIDATION])
    found = {
        "pooling": shape.pooling,
        "head_init": head_init(spec),
        "stop": stop,
        "data": spec.data.model_copy(update={"max_length": length}),
        "optim": optim.model_copy(update={"learning_rate": rate, "head_learning_rate": head_rate}),
    }
    return spec.model_copy(update=found), rate, length
