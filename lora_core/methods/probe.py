"""The probe: fit the last layer of the head; see `training/probe.py`."""

from torch import nn

from lora_core.encoders.base import EncoderFamily
from lora_core.methods.base import Method


class Probe(Method):
    """Train the last layer alone. The one before it is set, not trained."""

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        model.requires_grad_(False)
        model.get_submodule(family.head[-1]).requires_grad_(True)
