"""Says in the log when the database goes away and when it is back, each once."""

import time

from structlog.typing import FilteringBoundLogger


class Contact:
    """Of one part of the worker with the database; the lines are its own."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._lost_at: float | None = None

    def tell(self, outage: Exception | None) -> None:
        """How the last try ended. `None`: the database answered."""
        if outage is not None and self._lost_at is None:
            self._lost_at = time.monotonic()
            self._log.warning("the database does not answer", error=str(outage))
        elif outage is None and self._lost_at is not None:
            seconds = round(time.monotonic() - self._lost_at, 1)
            self._lost_at = None
            self._log.warning("the database answers again", seconds=seconds)
