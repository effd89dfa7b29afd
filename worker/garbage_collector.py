"""Collects garbage in a thread of its own: in a large bucket it takes long."""

from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE_ERRORS
from app.errors import AppError
from app.resources import Resources
from app.retention import service as retention
from worker.db_retry import first_line
from worker.failures import is_disk_error

FIRST_RUN_SECONDS = 60.0  # after the worker has started
INTERVAL_SECONDS = 3600.0

log = structlog.get_logger(__name__)


class GarbageCollector:
    """Runs garbage collection every hour. It is safe to interrupt by ending the process."""

    def __init__(self, resources: Resources, *, draining: Flag) -> None:
        self._resources = resources
        self._draining = draining

    def run(self) -> None:
        """Run until the worker drains."""
        pause = FIRST_RUN_SECONDS
        while not self._draining.wait(pause):
            self._collect()
            pause = INTERVAL_SECONDS

    def _collect(self) -> None:
        try:
            retention.collect_garbage(self._resources)
        except OUTAGE_ERRORS as error:
            log.warning("the database is unreachable", error=first_line(error))
        except Exception as error:
            expected = isinstance(error, AppError) or is_disk_error(error)
            log.error("garbage collection failed", error=str(error), exc_info=not expected)
