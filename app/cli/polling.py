"""Fetching something from the service again and again."""

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TypeVar

from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.output import print_warning

OUTAGE_TIMEOUT = 60.0  # seconds without a response until polling gives up

_Polled = TypeVar("_Polled")


def poll_forever(fetch: Callable[[], _Polled], *, interval: float) -> Iterator[_Polled]:
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


def warn_of_outage(error: ServiceUnreachableOrFailed) -> None:
    """Say that the service is away, and how long it is waited for."""
    print_warning(f"{error.detail}; trying again for up to {OUTAGE_TIMEOUT:g} s")
