"""Encoder families: which one a config.json describes."""

from collections.abc import Mapping
from typing import Any

from lora_core.encoders import families, transformers_families
from lora_core.encoders.families import EncoderFamily, FastPathFamily
from lora_core.encoders.transformers_families import UNSUITABLE
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
TRANSFORMERS_FAMILIES: Mapping[str, EncoderFamily] = {
    family.model_type: family
    for family in (
        transformers_families.DEBERTA_V2,
        transformers_families.MPNET,
        transformers_families.ALBERT,
        transformers_families.NOMIC,
        transformers_families.GTE,
        transformers_families.JINA_V3,
        transformers_families.EUROBERT,
        transformers_families.ULTRABERT,
        transformers_families.ERNIE,
        transformers_families.MEGATRON_BERT,
        transformers_families.REMBERT,
        transformers_families.MOBILEBERT,
        transformers_families.DATA2VEC_TEXT,
        transformers_families.ROBERTA_PRELAYERNORM,
        transformers_families.XLM_ROBERTA_XL,
        transformers_families.LUKE,
        transformers_families.ROFORMER,
        transformers_families.BIG_BIRD,
        transformers_families.LONGFORMER,
        transformers_families.LAYOUTLM,
        transformers_families.LILT,
        transformers_families.ESM,
        transformers_families.ESMC,
    )
}


def get_family(config: Mapping[str, Any], *, base: str | None = None) -> EncoderFamily:
    """Return the family of the encoder with this config.

    `base` is its name in errors. Raises `UntrainableEncoder`, `UntrustedCode`,
    `UnsupportedEncoder`.
    """
    model_type = str(config.get("model_type"))[:64]
    family = FAMILIES.get(model_type) or TRANSFORMERS_FAMILIES.get(model_type)
    if family is not None:
        return family
    base = base or model_type
    if (reason := UNSUITABLE.get(model_type)) is not None:
        raise UntrainableEncoder(base=base, model_type=model_type, reason=reason)
    if "auto_map" in config:
        raise UntrustedCode(base=base, model_type=model_type)
    supported = ", ".join((*FAMILIES, *TRANSFORMERS_FAMILIES))
    raise UnsupportedEncoder(base=base, model_type=model_type, supported=supported)
