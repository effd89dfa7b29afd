"""Full fine-tuning: train everything."""

from torch import nn

from lora_core.encoders.base import EncoderFamily
from lora_core.methods.base import Method


class Full(Method):
    """Train every parameter."""

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:  # noqa: ARG002
        model.requires_grad_(True)
