"""Asks a database that may be away; says in the log when it goes and when it is back, each once."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from app.database.errors import OUTAGE

FIRST_PAUSE = 0.4  # seconds between two tries
LONGEST_PAUSE = 5.0

Answer = TypeVar("Answer")


def first_line(outage: Exception) -> str:
    """SQLAlchemy adds an address where to read about it."""
    return str(outage).partition("\n")[0]


class Contact:
    """Of one part of the worker with the database; the lines are its own."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._lost_at: float | None = None

    def tell(self, outage: Exception | None) -> None:
        """How the last try ended. `None`: the database answered."""
        if outage is not None and self._lost_at is None:
            self._lost_at = time.monotonic()
            self._log.warning("the database does not answer", error=first_line(outage))
        elif outage is None and self._lost_at is not None:
            seconds = round(time.monotonic() - self._lost_at, 1)
            self._lost_at = None
            self._log.warning("the database answers again", seconds=seconds)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Tell how the block ends. An outage is raised all the same."""
        try:
            yield
        except OUTAGE as error:
            self.tell(error)
            raise
        self.tell(None)

    def insist(self, ask: Callable[[], Answer]) -> Answer:
        """The answer, however long the database is away: an outage must not cost a job its end."""
        pause = FIRST_PAUSE
        while True:
            try:
                with self.trying():
                    return ask()
            except OUTAGE:
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(LONGEST_PAUSE, 2 * pause)
