"""LoRA layers, by name."""

from collections.abc import Mapping

from lora_core.layers.base import AdapterLinear
from lora_core.layers.dora import DoraLinear
from lora_core.layers.lora import LoraFaLinear, LoraLinear, RsLoraLinear, UnscaledLinear
from lora_core.specs.method import Variant

VARIANTS: Mapping[Variant, type[AdapterLinear]] = {
    Variant.LORA: LoraLinear,
    Variant.RSLORA: RsLoraLinear,
    Variant.UNSCALED: UnscaledLinear,
    Variant.DORA: DoraLinear,
    Variant.LORA_FA: LoraFaLinear,
}
