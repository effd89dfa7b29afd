"""LoRA layers by variant name."""

from collections.abc import Mapping

from lora_core.layers.base import AdapterLinear
from lora_core.layers.lora import (
    AlphaScaledLoraLinear,
    DoraLinear,
    LoraFaLinear,
    LoraLinear,
    RsLoraLinear,
)
from lora_core.specs.method import LoraVariant

VARIANTS: Mapping[LoraVariant, type[AdapterLinear]] = {
    LoraVariant.LORA: LoraLinear,
    LoraVariant.RSLORA: RsLoraLinear,
    LoraVariant.UNSCALED: AlphaScaledLoraLinear,
    LoraVariant.DORA: DoraLinear,
    LoraVariant.LORA_FA: LoraFaLinear,
}
