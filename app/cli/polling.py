"""Looking again and again at something that changes."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from app.cli.errors import Unreachable

PATIENCE_SECONDS = 60.0  # without a word from the service before giving up

T = TypeVar("T")


def looks(look: Callable[[], T], *, every: float) -> Iterator[T]:
    """What `look` finds, at once and from then on, for as long as one asks.

    A service that is away for less than a minute is waited for. Raises `Unreachable`.
    """
    heard = time.monotonic()
    while True:
        try:
            found = look()
        except Unreachable:
            if time.monotonic() - heard > PATIENCE_SECONDS:
                raise
        else:
            heard = time.monotonic()
            yield found
        time.sleep(every)
