"""Encoder families: which one a config.json describes."""

from collections.abc import Mapping
from typing import Any

from lora_core.encoders import families, general_families
from lora_core.encoders.families import EncoderFamily, FastPathFamily
from lora_core.encoders.general_families import UNSUITABLE
from lora_core.errors.base_model import UnsupportedEncoder, UntrainableEncoder, UntrustedCode

FAMILIES: Mapping[str, FastPathFamily] = {
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
        general_families.DEBERTA_V2,
        general_families.MPNET,
        general_families.ALBERT,
        general_families.NOMIC,
        general_families.GTE,
        general_families.JINA_V3,
        general_families.EUROBERT,
        general_families.ULTRABERT,
        general_families.ERNIE,
        general_families.MEGATRON_BERT,
        general_families.REMBERT,
        general_families.MOBILEBERT,
        general_families.DATA2VEC_TEXT,
        general_families.ROBERTA_PRELAYERNORM,
        general_families.XLM_ROBERTA_XL,
        general_families.LUKE,
        general_families.ROFORMER,
        general_families.BIG_BIRD,
        general_families.LONGFORMER,
        general_families.LAYOUTLM,
        general_families.LILT,
        general_families.ESM,
        general_families.ESMC,
    )
}


def get_family(config: Mapping[str, Any], *, base: str | None = None) -> EncoderFamily:
    """Return the family of the encoder with this config.

    `base` is its name in errors. Raises `UntrainableEncoder`, `UntrustedCode`,
    `UnsupportedEncoder`.
    """
    model_type = str(config.get("model_type"))[:64]
    family = FAMILIES.get(model_type) or GENERAL_FAMILIES.get(model_type)
    if family is not None:
        return family
    base = base or model_type
    if (reason := UNSUITABLE.get(model_type)) is not None:
        raise UntrainableEncoder(base=base, model_type=model_type, reason=reason)
    if "auto_map" in config:
        raise UntrustedCode(base=base, model_type=model_type)
    supported = ", ".join((*FAMILIES, *GENERAL_FAMILIES))
    raise UnsupportedEncoder(base=base, model_type=model_type, supported=supported)
