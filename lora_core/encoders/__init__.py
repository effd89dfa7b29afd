"""Encoder families: which one a config.json describes."""

from collections.abc import Mapping
from typing import Any

from lora_core.encoders import families, general
from lora_core.encoders.families import EncoderFamily, FastFamily
from lora_core.encoders.general import UNSUITABLE
from lora_core.errors.base_model import UnsuitableEncoder, UnsupportedEncoder, UntrustedCode

FAMILIES: Mapping[str, FastFamily] = {
    family.model_type: family
    for family in (
        families.DISTILBERT,
        families.BERT,
        families.ROBERTA,
        families.XLM_ROBERTA,
        families.CAMEMBERT,
        families.ELECTRA,
        families.MODERNBERT,
    )
}
GENERAL_FAMILIES: Mapping[str, EncoderFamily] = {
    family.model_type: family
    for family in (
        general.DEBERTA_V2,
        general.MPNET,
        general.ALBERT,
        general.NOMIC,
        general.GTE,
        general.JINA_V3,
        general.EUROBERT,
        general.ULTRABERT,
        general.ERNIE,
        general.MEGATRON_BERT,
        general.REMBERT,
        general.MOBILEBERT,
        general.DATA2VEC_TEXT,
        general.ROBERTA_PRELAYERNORM,
        general.XLM_ROBERTA_XL,
        general.LUKE,
        general.ROFORMER,
        general.BIG_BIRD,
        general.LONGFORMER,
        general.LAYOUTLM,
        general.LILT,
        general.ESM,
        general.ESMC,
    )
}


def get_family(config: Mapping[str, Any], *, base: str | None = None) -> EncoderFamily:
    """Return the family of the encoder with this config.

    `base` is its name in errors. Raises `UnsuitableEncoder`, `UntrustedCode`, `UnsupportedEncoder`.
    """
    model_type = str(config.get("model_type"))[:64]
    family = FAMILIES.get(model_type) or GENERAL_FAMILIES.get(model_type)
    if family is not None:
        return family
    base = base or model_type
    if (reason := UNSUITABLE.get(model_type)) is not None:
        raise UnsuitableEncoder(base=base, model_type=model_type, reason=reason)
    if "auto_map" in config:
        raise UntrustedCode(base=base, model_type=model_type)
    supported = ", ".join((*FAMILIES, *GENERAL_FAMILIES))
    raise UnsupportedEncoder(base=base, model_type=model_type, supported=supported)
