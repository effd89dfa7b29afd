"""Looking again and again at something that changes."""

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TypeVar

from app.cli.errors import Unreachable

PATIENCE_SECONDS = 60.0  # without a word from the service before giving up

T = TypeVar("T")


def looks(look: Callable[[], T], *, every: float) -> Iterator[T]:
    """What `look` finds, at once and from then on, for as long as one asks.

    A service that is away for less than a minute is waited for. Raises `Unreachable`.
    """
    heard = monotonic()
    while True:
        try:
            found = look()
        except Unreachable:
            if monotonic() - heard > PATIENCE_SECONDS:
                raise
        else:
            heard = monotonic()
            yield found
        sleep(every)
