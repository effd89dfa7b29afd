"""Full fine-tuning: train everything."""

from torch import nn

from lora_core.encoders import pooling
from lora_core.encoders.base import EncoderFamily
from lora_core.methods.base import Method


class Full(Method):
    """Train every parameter, but for a block that averages."""

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        model.requires_grad_(True)
        pooling.freeze(model, family)
