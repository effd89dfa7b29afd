"""LoRA: train low-rank adapters beside frozen layers."""

from torch import nn

from lora_core.adapters import inject
from lora_core.encoders.base import EncoderFamily
from lora_core.methods.base import Method
from lora_core.specs.method import Head, LoraSpec


class Lora(Method):
    """Inject adapters; train them and, by default, the head in full."""

    def __init__(self, spec: LoraSpec) -> None:
        self.spec = spec

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        model.requires_grad_(False)
        # New parameters train, but for those that their variant has frozen.
        inject(model, family, self.spec)
        if self.spec.head is Head.TRAIN:
            for name in family.head:
                model.get_submodule(name).requires_grad_(True)
