"""The baseline: train the last layers of a frozen encoder."""

from torch import nn

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import learned_blocks
from lora_core.errors.spec import LayerOutOfRange
from lora_core.methods.base import Method
from lora_core.specs.method import BaselineSpec


class Baseline(Method):
    """Train the head and, if asked, the last blocks."""

    def __init__(self, spec: BaselineSpec) -> None:
        self.spec = spec

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        found = learned_blocks(model, family)
        first = len(found) - self.spec.blocks
        if first < 0:
            raise LayerOutOfRange(layer=self.spec.blocks - 1, count=len(found), last=len(found) - 1)
        model.requires_grad_(False)
        for module in [*found[first:], *(model.get_submodule(name) for name in family.head)]:
            module.requires_grad_(True)
