"""How the token states of a text become one vector for the classification head."""

import json
from enum import StrEnum

POOLING_FILE = "1_Pooling/config.json"  # where sentence-transformers stores it
# In config.json: the last block averages (encoders/pooling.py).
POOLING_BLOCK_KEY = "mean_pooling_block"


class Pooling(StrEnum):
    """Which state the classification head reads."""

    AUTO = "auto"  # as the files of the base model say; the first token if they do not say
    CLS = "cls"  # the state of the first token
    MEAN = "mean"  # the normalized mean of the states of all tokens


def parse_pooling_config(content: bytes) -> Pooling | None:
    """Return the pooling that a sentence encoder's pooling file declares; None if it is
    unsupported."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    for pooling in (Pooling.MEAN, Pooling.CLS):
        names = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
        if config.get("pooling_mode") == pooling.value or config.get(names[pooling.value]) is True:
            return pooling
    return None
