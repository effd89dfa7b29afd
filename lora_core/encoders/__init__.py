"""Encoder families, by the `model_type` of their config.json."""

from collections.abc import Mapping

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.bert import BERT
from lora_core.encoders.distilbert import DISTILBERT
from lora_core.encoders.roberta import ROBERTA

FAMILIES: Mapping[str, EncoderFamily] = {
    family.model_type: family for family in (DISTILBERT, BERT, ROBERTA)
}
