"""The Hugging Face Hub: valid repository names, and which of its errors are transient."""

import re

from httpx2 import HTTPError
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

HUB_PREFIX = "hub:"  # of a data source: a dataset on the hub
TOO_MANY_REQUESTS = 429
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Return whether this is a valid name of a model or dataset, with or without its owner."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def describe_transient_failure(error: BaseException | None) -> str | None:
    """Describe the transient failure of the hub that caused `error`; None if there is none.

    Also None if `HF_HUB_OFFLINE` disables the hub.
    """
    while error is not None and not constants.HF_HUB_OFFLINE:
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            transient = status >= 500 or status == TOO_MANY_REQUESTS
            return f"it returned status {status}" if transient else None
        if isinstance(error, HTTPError | ConnectionError):
            return "it cannot be reached"
        error = error.__cause__ or error.__context__
    return None
