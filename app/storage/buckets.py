"""How a bucket is reached, and what its errors mean to us."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from app.storage.errors import StorageRefused, StorageUnavailable

if TYPE_CHECKING:
    from obstore.store import RetryConfig

# A few tries within seconds: whoever waits longer does so where it can be seen.
_RETRIES: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=1),
        "base": 2,
    },
}
# How long a request may take: small things are quick or not at all, a line may be slow but not
# silent. A large file is sent in requests of a few MB each.
TALK = {"connect_timeout": "3s", "timeout": "5s"}
FETCH = {"connect_timeout": "3s", "read_timeout": "10s", "timeout": "1day"}
SEND = {"connect_timeout": "3s", "timeout": "2min"}

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
# Of the 4xx. A conflict is with another write to the same place, which will be over soon.
_PASSING = {408, 409, 429}
_PASSING_CODES = {"RequestTimeout"}  # comes as 400
_NO_KEYS = ("Missing AccessKey", "Missing Secret")
_METADATA = ("/latest/api/token", "/latest/meta-data")  # who has no key asks the machine for one
_NO_CREDENTIALS = "no credentials, set AWS_ACCESS_KEY_ID and the secret"
_MISTAKES = ("builder error", "incorrectly configured region")

log = structlog.get_logger(__name__)


def client(bucket: str, prefix: str, patience: Any) -> S3Store:
    """A client with the patience of `TALK`, `FETCH` or `SEND`.

    Credentials and endpoint come from `AWS_…`. Raises `StorageRefused` if half of them is missing.
    """
    with explained():  # as `client_options` they would put aside AWS_ALLOW_HTTP and its like
        return S3Store(bucket, prefix=prefix or None, retry_config=_RETRIES, config=patience)


@contextmanager
def explained() -> Iterator[None]:
    """Errors of the bucket as ours. A missing object stays a `FileNotFoundError`."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise StorageRefused(reason="there is no such bucket") from error
    except BaseError as error:
        text = str(error)
        log.warning("the store cannot be used", error=text.split("\n\nDebug source")[0])
        raise _meaning(error, text) from error


def _meaning(error: BaseError, text: str) -> StorageRefused | StorageUnavailable:
    status, code = _STATUS.search(text), _CODE.search(text)
    if any(words in text for words in _NO_KEYS):
        return StorageRefused(reason=_NO_CREDENTIALS)
    if any(words in text for words in _MISTAKES):
        return StorageRefused(reason="wrong endpoint or region, or http without AWS_ALLOW_HTTP")
    keyless = any(words in text for words in _METADATA)
    if status is None:
        reason = "no connection, or no answer in time"
        return StorageUnavailable(reason=f"{_NO_CREDENTIALS}; {reason}" if keyless else reason)
    number = int(status[1])
    reason = f"status {number}" + (f", {code[1]}" if code else "")
    passing = number in _PASSING or (code is not None and code[1] in _PASSING_CODES)
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if refused or (400 <= number < 500 and not passing):
        return StorageRefused(reason=_NO_CREDENTIALS if keyless else reason)
    return StorageUnavailable(reason=reason)
