"""What a worker does again and again in a thread of its own, so that no heartbeat waits for it."""

from collections.abc import Callable
from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE_ERRORS
from worker.outages import OutageTracker

log = structlog.get_logger(__name__)


def repeat_until_drained(
    task: Callable[[], object], *, name: str, seconds: float, draining: Flag
) -> None:
    """Run a task every `seconds` until the worker drains, whatever it raises.

    Of an outage of the database, only the start and the end are logged.
    """
    task_log = log.bind(task=name)
    outages = OutageTracker(task_log)
    while not draining.wait(seconds):
        try:
            with outages.tracking_outage():
                task()
        except OUTAGE_ERRORS:
            continue
        except Exception:
            task_log.exception("background task failed")
