"""Fine-tuning methods, by name."""

from lora_core.methods.base import Method
from lora_core.methods.baseline import Baseline
from lora_core.methods.full import Full
from lora_core.methods.lora import Lora
from lora_core.specs.method import BaselineSpec, EncoderMethod, FullSpec, LoraSpec


def build(spec: EncoderMethod) -> Method:
    """The method that a spec describes."""
    match spec:
        case BaselineSpec():
            return Baseline(spec)
        case LoraSpec():
            return Lora(spec)
        case FullSpec():
            return Full()
