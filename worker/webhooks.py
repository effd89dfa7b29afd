"""Delivers webhooks. Any number of workers may do so at the same time."""

import threading
from collections.abc import Iterable
from threading import Event as Flag
from uuid import UUID

import structlog

from app.database.errors import OUTAGE_ERRORS
from app.resources import Resources
from app.webhooks import repository
from app.webhooks.delivery import deliver_next
from worker.outages import brief_error_message

POLL_SECONDS = 1.0  # between two looks for deliveries that are due

log = structlog.get_logger(__name__)


class WebhookDeliverer:
    """Sends the due deliveries of each endpoint in a thread of its own, one after the other.

    So a slow receiver delays only its own deliveries. A thread ends when nothing is due.
    """

    def __init__(self, resources: Resources, *, draining: Flag) -> None:
        self._resources = resources
        self._draining = draining
        self._busy: set[UUID] = set()  # endpoints that have a thread
        self._lock = threading.Lock()

    def start_due(self) -> None:
        """Start the threads of endpoints with deliveries that are due.

        What is being sent when the worker drains is sent again by another worker, unless its result
        is recorded in time.
        """
        with self._resources.database.read() as session:
            due = repository.list_due_endpoint_ids(session)
        self._start_threads(due)

    def _start_threads(self, endpoint_ids: Iterable[UUID]) -> None:
        for endpoint_id in endpoint_ids:
            with self._lock:
                if endpoint_id in self._busy:
                    continue
                self._busy.add(endpoint_id)
            thread = threading.Thread(
                target=self._deliver_due,
                args=(endpoint_id,),
                name=f"webhook-{endpoint_id}",
                daemon=True,
            )
            try:
                thread.start()
            except Exception:
                self._release(endpoint_id)
                raise

    def _deliver_due(self, endpoint_id: UUID) -> None:
        try:
            while not self._draining.is_set() and deliver_next(
                self._resources.database, self._resources.settings, endpoint_id
            ):
                pass
        except OUTAGE_ERRORS as error:
            log.warning("the database is unreachable", error=brief_error_message(error))
        except Exception:
            log.exception("failed to deliver a webhook", webhook_id=str(endpoint_id))
        finally:
            self._release(endpoint_id)

    def _release(self, endpoint_id: UUID) -> None:
        with self._lock:
            self._busy.discard(endpoint_id)
