"""Fetching something from the service again and again."""

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TypeVar

from app.cli.errors import ServiceUnreachableOrFailed

OUTAGE_TIMEOUT = 60.0  # seconds without a response until polling gives up

_Polled = TypeVar("_Polled")


def poll_forever(fetch: Callable[[], _Polled], *, interval: float) -> Iterator[_Polled]:
    """Yield the result of `fetch` now and every `interval` seconds.

    An outage of less than a minute is waited out. Raises `ServiceUnreachableOrFailed` after that.
    """
    last_success = monotonic()
    while True:
        try:
            value = fetch()
        except ServiceUnreachableOrFailed:
            if monotonic() - last_success > OUTAGE_TIMEOUT:
                raise
        else:
            last_success = monotonic()
            yield value
        sleep(interval)
