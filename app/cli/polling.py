"""Requests that are made again: polls, and those that an overloaded service rejected."""

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TypeVar

from app.cli.errors import RequestRejected, ServiceUnreachableOrFailed
from app.cli.output import print_warning

OUTAGE_TIMEOUT = 60.0  # seconds without a response until polling gives up

MAX_TRIES = 30  # of a request, while the service is overloaded
RETRY_SECONDS = 1.0  # if the service sends no Retry-After

_Result = TypeVar("_Result")


def poll_forever(fetch: Callable[[], _Result], *, interval: float) -> Iterator[_Result]:
    """Yield the result of `fetch` now and every `interval` seconds.

    An outage of less than a minute is waited out. Raises `ServiceUnreachableOrFailed` after that.
    """
    last_success, warned = monotonic(), False
    while True:
        try:
            value = fetch()
        except ServiceUnreachableOrFailed as error:
            if monotonic() - last_success > OUTAGE_TIMEOUT:
                raise
            if not warned:
                warn_of_outage(error)
            warned = True
        else:
            last_success, warned = monotonic(), False
            yield value
        sleep(interval)


def retry_while_overloaded(request: Callable[[], _Result]) -> _Result:
    """Return the result of `request`, retrying it while the service is overloaded, or the rate
    limit of the key is reached. Raises `RequestRejected`."""
    for left in reversed(range(MAX_TRIES)):
        try:
            return request()
        except RequestRejected as error:
            if error.status != 429 or not left:
                raise
            sleep(error.retry_after or RETRY_SECONDS)
    raise AssertionError("not reached")


def warn_of_outage(error: ServiceUnreachableOrFailed) -> None:
    """Say that the service is away, and how long it is waited for."""
    print_warning(f"{error.detail}; trying again for up to {OUTAGE_TIMEOUT:g} s")
