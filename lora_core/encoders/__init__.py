"""Encoder families, by `model_type` in config.json."""

from collections.abc import Mapping

from lora_core.encoders.families import BERT, DISTILBERT, ROBERTA, EncoderFamily

FAMILIES: Mapping[str, EncoderFamily] = {
    family.model_type: family for family in (DISTILBERT, BERT, ROBERTA)
}
