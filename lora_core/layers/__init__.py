"""LoRA layers by variant name."""

from collections.abc import Mapping

from lora_core.layers.base import AdapterLinear
from lora_core.layers.lora import (
    DoraLinear,
    LoraFaLinear,
    LoraLinear,
    RsLoraLinear,
    UnscaledLoraLinear,
)
from lora_core.specs.method import LoraVariant

VARIANTS: Mapping[LoraVariant, type[AdapterLinear]] = {
    LoraVariant.LORA: LoraLinear,
    LoraVariant.RSLORA: RsLoraLinear,
    LoraVariant.UNSCALED: UnscaledLoraLinear,
    LoraVariant.DORA: DoraLinear,
    LoraVariant.LORA_FA: LoraFaLinear,
}
