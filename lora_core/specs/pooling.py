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


_MODES = {
    "cls": Pooling.CLS,
    "mean": Pooling.MEAN,
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_mean_tokens": Pooling.MEAN,
}


def parse_pooling_config(content: bytes) -> Pooling | None:
    """Return the pooling that a sentence encoder's pooling file declares; None if it is
    unsupported, as are several modes, whose vectors are concatenated."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    mode = config.get("pooling_mode", modes[0] if len(modes) == 1 else None)
    return _MODES.get(mode) if isinstance(mode, str) else None
