"""The Hugging Face Hub: names, the access token, and which of its errors are transient."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from httpx2 import HTTPError
from huggingface_hub import constants, get_token
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

HUB_PREFIX = "hub:"  # of a data source: a dataset on the hub
ALLOW_ANY = "*"  # in a list of allowed names
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # as huggingface_hub reads them
REQUEST_TIMEOUT, TOO_MANY_REQUESTS = 408, 429
_CACHE_VARIABLES = ("HF_HUB_CACHE", "HF_DATASETS_CACHE")  # by default below HF_HOME
_FOLDERS = ("hub", "datasets", "xet")  # of HF_HOME
_CONFIG = re.compile(r"[^<>:/\\|?*\s]{1,256}")  # without what `datasets` refuses in it
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


def is_hub_name(text: str) -> bool:
    """Return whether this is a valid name of a model or dataset, with or without its owner."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def is_allowed_repository(name: str, allowed: Collection[str]) -> bool:
    """Return whether this is the name of a repository in a list of allowed ones, or `*` is."""
    return is_hub_name(name) and (name in allowed or ALLOW_ANY in allowed)


class HubDataset(NamedTuple):
    """A dataset on the hub: `hub:imdb`, `hub:OWNER/NAME`, or `hub:OWNER/NAME:CONFIG`."""

    name: str
    config: str | None  # its configuration, if it has several


def parse_hub_dataset(source: str) -> HubDataset | None:
    """Return the dataset that a data source names; None if that is not a valid name."""
    name, colon, config = source.removeprefix(HUB_PREFIX).partition(":")
    if not is_hub_name(name) or (colon and not _CONFIG.fullmatch(config)):
        return None
    return HubDataset(name, config if colon else None)


def cache_directories() -> list[Path]:
    """Return where downloads are stored by a process with this environment. They may not exist.

    Folders of HF_HOME are among them, as each may be a link to another disk.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(os.environ.get("HF_HOME") or default)
    found = [home, *(home / name for name in _FOLDERS)]
    found += [Path(os.environ[name]) for name in _CACHE_VARIABLES if os.environ.get(name)]
    return [each.expanduser().absolute() for each in found]


# -- The access token -----------------------------------------------------------------------------

_taken_token: str | None = None


def hide_token_from_environment() -> bool:
    """Remove the token from the environment of this process; only `find_hub_token` has it then.

    Returns whether there was one.
    """
    global _taken_token
    if not any(os.environ.get(name) for name in TOKEN_VARIABLES):
        return False
    _taken_token = get_token()  # without line breaks, which an HTTP header cannot have
    for name in TOKEN_VARIABLES:
        os.environ.pop(name, None)
    return True


def find_hub_token() -> str | None:
    """Return the token for downloads from the hub: the one taken, else as huggingface_hub finds
    it."""
    return _taken_token or get_token()


def is_gated_error(error: BaseException | None) -> bool:
    """Return whether the hub refused a download because the repository is gated."""
    while error is not None:
        # `datasets` replaces the exception of huggingface_hub by one with this message.
        if isinstance(error, GatedRepoError) or "is a gated dataset" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def build_gated_error_detail(path: str) -> dict[str, str]:
    """Return why a gated repository refused a download, and its page.

    `path` is that of the page, such as `datasets/OWNER/NAME`.
    """
    has_token = find_hub_token() is not None
    problem = "the token (HF_TOKEN) has no access to it" if has_token else "no token is set"
    return {"problem": problem, "page": f"{constants.ENDPOINT}/{path}"}


# -- Errors ---------------------------------------------------------------------------------------


def describe_transient_failure(error: BaseException | None) -> str | None:
    """Describe the transient failure of the hub that caused `error`; None if there is none.

    Also None if `HF_HUB_OFFLINE` disables the hub.
    """
    while error is not None and not constants.HF_HUB_OFFLINE:
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            transient = status >= 500 or status in (REQUEST_TIMEOUT, TOO_MANY_REQUESTS)
            return f"it returned status {status}" if transient else None
        if isinstance(error, HTTPError | ConnectionError):
            return "it cannot be reached"
        error = error.__cause__ or error.__context__
    return None
