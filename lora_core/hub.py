"""The hub of models and data sets: which of its failures may pass."""

from httpx2 import HTTPError
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

TOO_MANY_REQUESTS = 429


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
