"""The hub of models and data sets: what its names look like, which of its failures may pass."""

import re

from httpx2 import HTTPError
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

PREFIX = "hub:"  # of a data set of the hub, where a run names its source
TOO_MANY_REQUESTS = 429
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Whether a model or a data set there can be called so, with or without its owner."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def trouble(error: BaseException | None) -> str | None:
    """What is wrong with the hub, if that is the cause of `error` and may pass.

    Nothing when `HF_HUB_OFFLINE` says that there shall be no hub.
    """
    while error is not None and not constants.HF_HUB_OFFLINE:
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            passing = status >= 500 or status == TOO_MANY_REQUESTS
            return f"it answers {status}" if passing else None
        if isinstance(error, HTTPError | ConnectionError):
            return "it cannot be reached"
        error = error.__cause__ or error.__context__
    return None
