"""How the states of a text's tokens become one vector for the head."""

import json
from enum import StrEnum

FILE = "1_Pooling/config.json"  # where sentence-transformers keeps it
MARK = "mean_pooling_block"  # in config.json: the last block averages (encoders/pooling.py)


class Pooling(StrEnum):
    """Which state the head reads."""

    AUTO = "auto"  # what the files of the base say; without a word from them, the first token
    CLS = "cls"  # that of the first token
    MEAN = "mean"  # the normalized mean over all tokens


def declared(content: bytes) -> Pooling | None:
    """What the pooling file of a sentence encoder says; None for what is not offered here."""
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
