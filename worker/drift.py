"""Checks the versions in production for drift. Any number of workers may do so."""

from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE_ERRORS
from app.drift.schedule import check_next_due
from app.resources import Resources
from worker.outages import OutageTracker

POLL_SECONDS = 60.0  # between two looks for versions that are due

log = structlog.get_logger(__name__)


class DriftChecker:
    """Makes the checks that are due, one after the other.

    It has a thread of its own, because a check takes longer than the reconciler may be silent.
    """

    def __init__(self, resources: Resources, *, draining: Flag) -> None:
        self._resources = resources
        self._draining = draining
        self._outages = OutageTracker(log)

    def run(self) -> None:
        """Run until the worker drains. A check that is under way then is made by another one."""
        while not self._draining.wait(POLL_SECONDS):
            try:
                with self._outages.tracking_outage():
                    while not self._draining.is_set() and check_next_due(self._resources):
                        pass
            except OUTAGE_ERRORS:
                continue
            except Exception:
                log.exception("failed to check for drift")
