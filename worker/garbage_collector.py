"""Removes what nobody needs any more, beside everything else: in a large bucket it takes long."""

from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE
from app.errors import AppError
from app.resources import Resources
from app.retention import service as retention
from worker.db_retry import first_line
from worker.failures import is_disk

FIRST_SECONDS = 60.0  # after the start
PAUSE_SECONDS = 3600.0

log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps once in a while. One that is broken off by the end of the process does no harm."""

    def __init__(self, resources: Resources, *, draining: Flag) -> None:
        self._resources = resources
        self._draining = draining

    def run(self) -> None:
        """Until the worker drains."""
        pause = FIRST_SECONDS
        while not self._draining.wait(pause):
            self._sweep()
            pause = PAUSE_SECONDS

    def _sweep(self) -> None:
        try:
            retention.sweep(self._resources)
        except OUTAGE as error:
            log.warning("the database does not answer", error=first_line(error))
        except Exception as error:
            known = isinstance(error, AppError) or is_disk(error)
            log.error("the sweep failed", error=str(error), exc_info=not known)
