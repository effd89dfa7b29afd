"""Encoder families: which one a config.json describes."""

from collections.abc import Mapping
from typing import Any

from lora_core.encoders.families import (
    BERT,
    CAMEMBERT,
    DISTILBERT,
    ELECTRA,
    MODERNBERT,
    ROBERTA,
    XLM_ROBERTA,
    EncoderFamily,
    FastFamily,
)
from lora_core.errors.base_model import UnsupportedEncoder

FAMILIES: Mapping[str, FastFamily] = {
    family.model_type: family
    for family in (DISTILBERT, BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, ELECTRA, MODERNBERT)
}


def get_family(config: Mapping[str, Any], *, base: str | None = None) -> EncoderFamily:
    """Return the family of the encoder with this config. Raises `UnsupportedEncoder`.

    `base` is its name in the error.
    """
    model_type = str(config.get("model_type"))[:64]
    if (family := FAMILIES.get(model_type)) is None:
        supported = ", ".join(FAMILIES)
        raise UnsupportedEncoder(
            base=base or model_type, model_type=model_type, supported=supported
        )
    return family


def get_fast_family(config: Mapping[str, Any]) -> FastFamily:
    """Return the family of an encoder that this library runs itself."""
    family = get_family(config)
    if not isinstance(family, FastFamily):
        raise TypeError(f"{family.model_type} is not run block by block")
    return family
