"""Which of the sizes is measured here, and why."""

import torch
from httpx2 import HTTPError
from huggingface_hub import HfApi

from benchmarks.reproduce.plan import BASE, HUB, PART, SHARE, Size

PATIENCE_SECONDS = 10.0


def chosen(asked: str | None, *, whole: bool) -> tuple[Size, str]:
    """`asked`: "hub", "sample", or nothing, then it is looked for; `whole`: all of the sample."""
    if asked == "hub":
        return HUB, "the hub was asked for"
    if whole:
        return SHARE, "all of the sample was asked for"
    if asked == "sample":
        return PART, "the sample was asked for"
    if not torch.cuda.is_available():
        return PART, "there is no GPU here"
    if (trouble := hub_trouble()) is not None:
        return PART, f"there is a GPU, but the hub does not give the base: {trouble}"
    return HUB, "there is a GPU, and the hub answers"


def hub_trouble() -> str | None:
    """Why the hub does not tell of the base, if it does not."""
    try:
        HfApi().model_info(BASE, timeout=PATIENCE_SECONDS)
    except (HTTPError, ConnectionError) as error:
        return type(error).__name__
    return None
