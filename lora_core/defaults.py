"""What a description leaves open and its base decides, from `config.json` alone."""

from lora_core.fit import Shape
from lora_core.specs.method import BaselineSpec, EncoderMethod, LoraSpec, Variant
from lora_core.specs.train import TrainSpec


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


def settled(spec: TrainSpec, shape: Shape) -> tuple[TrainSpec, float, int]:
    """The same spec with what depends on the base decided, and its learning rate and max_length."""
    rate = spec.optim.learning_rate or learning_rate(spec.encoder_method, shape.width)
    length = shape.max_length(spec.data.max_length)
    found = {
        "data": spec.data.model_copy(update={"max_length": length}),
        "optim": spec.optim.model_copy(update={"learning_rate": rate}),
    }
    return spec.model_copy(update=found), rate, length
