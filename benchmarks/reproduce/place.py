"""Which size is measured on this machine, and why."""

import torch
from httpx2 import HTTPError
from huggingface_hub import HfApi

from benchmarks.reproduce.plan import BASE, HUB, PART, SHARE, Size

PATIENCE_SECONDS = 10.0


def chosen(requested: str | None, *, whole: bool) -> tuple[Size, str]:
    """`requested`: "hub", "sample" or None, which means automatic; `whole`: the full sample."""
    if requested == "hub":
        return HUB, "the hub was requested"
    if whole:
        return SHARE, "all of the sample was requested"
    if requested == "sample":
        return PART, "the sample was requested"
    if not torch.cuda.is_available():
        return PART, "there is no GPU here"
    if (problem := hub_trouble()) is not None:
        return PART, f"there is a GPU, but the hub does not give the base: {problem}"
    return HUB, "there is a GPU, and the hub answers"


def hub_trouble() -> str | None:
    """Why the base cannot be read from the hub, or None."""
    try:
        HfApi().model_info(BASE, timeout=PATIENCE_SECONDS)
    except (HTTPError, ConnectionError) as error:
        return type(error).__name__
    return None
