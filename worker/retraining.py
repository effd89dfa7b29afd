"""Advances retraining runs. Any number of workers may do so."""

from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE_ERRORS
from app.resources import Resources
from app.retraining import advance
from worker.outages import OutageTracker

log = structlog.get_logger(__name__)


class RetrainingAdvancer:
    """Starts runs that are due and takes their next steps, in a thread of its own: collecting texts
    takes a minute, for which no heartbeat may wait."""

    def __init__(self, resources: Resources, *, draining: Flag) -> None:
        self._resources = resources
        self._draining = draining
        self._outages = OutageTracker(log)

    def run(self) -> None:
        """Run until the worker drains. A step that is interrupted then is taken again."""
        while not self._draining.wait(self._resources.settings.reconcile_seconds):
            try:
                with self._outages.tracking_outage():
                    advance.advance_all(self._resources)
            except OUTAGE_ERRORS:
                continue
            except Exception:
                log.exception("failed to advance retrainings")
