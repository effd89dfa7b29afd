"""Retries while the database is unreachable, and logs the start and end of each outage once."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from app.database.errors import OUTAGE_ERRORS

FIRST_DELAY_SECONDS = 0.4  # between two tries
MAX_DELAY_SECONDS = 5.0

_Result = TypeVar("_Result")


def brief_error_message(outage: Exception) -> str:
    """Return the error without the documentation link that SQLAlchemy appends."""
    return str(outage).partition("\n")[0]


class OutageTracker:
    """Tracks outages for one part of the worker, and logs them with its logger."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._outage_started: float | None = None

    def record_result(self, outage: Exception | None) -> None:
        """Record how the last try ended. `None`: the database answered."""
        if outage is not None and self._outage_started is None:
            self._outage_started = time.monotonic()
            self._log.warning("the database is unreachable", error=brief_error_message(outage))
        elif outage is None and self._outage_started is not None:
            seconds = round(time.monotonic() - self._outage_started, 1)
            self._outage_started = None
            self._log.warning("the database is reachable again", seconds=seconds)

    @contextmanager
    def tracking_outage(self) -> Iterator[None]:
        """Record how the block ends. The exception of an outage still propagates."""
        try:
            yield
        except OUTAGE_ERRORS as error:
            self.record_result(error)
            raise
        self.record_result(None)

    def retry(self, operation: Callable[[], _Result]) -> _Result:
        """Return the result of `operation`, retrying it without a limit during outages."""
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                with self.tracking_outage():
                    return operation()
            except OUTAGE_ERRORS:
                time.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                delay = min(MAX_DELAY_SECONDS, 2 * delay)
