"""Delivers events: one attempt of one delivery, from the claim to its result."""

import random
from contextlib import suppress
from uuid import UUID

import structlog

from app.database.engines import Database
from app.errors import AppError
from app.settings import Settings
from app.webhooks import repository, sender, service
from app.webhooks.addresses import AllowedHosts, Resolver, resolve_host
from app.webhooks.errors import WebhookNotFound
from app.webhooks.signing import signed_headers

GONE = 410  # the receiver wants no more events

log = structlog.get_logger(__name__)


def deliver_next(
    database: Database, settings: Settings, endpoint_id: UUID, resolve: Resolver = resolve_host
) -> bool:
    """Send the next due delivery of an endpoint, and record the result. False: none is due.

    No transaction is open while the receiver is waited for. Raises `OUTAGE_ERRORS`: the delivery is
    then sent again when its lease has run out.
    """
    with database.write() as session:
        claimed = repository.claim(session, endpoint_id)
    if claimed is None:
        return False
    body = claimed.body.encode()
    headers = signed_headers(
        body, event_id=claimed.event_id, timestamp=claimed.timestamp, secrets=claimed.secrets
    )
    status, error = None, ""
    try:
        allowed = AllowedHosts(settings.webhook_allowed_hosts)
        status = sender.post(claimed.url, body, headers, allowed=allowed, resolve=resolve)
    except AppError as problem:
        error = str(problem)
    fields = {"webhook_id": str(endpoint_id), "event_id": claimed.event_id, "status": status}
    with database.write() as session:
        if status is not None and 200 <= status < 300:
            repository.record_success(session, claimed, status=status)
            log.info("webhook delivered", **fields)
            return True
        if status == GONE:
            with suppress(WebhookNotFound):  # deleted in the meantime, with its deliveries
                service.disable_gone(session, endpoint_id)
        repository.record_failure(
            session,
            claimed,
            status=status,
            error=error or f"The receiver answered with status {status}.",
            jitter=random.uniform(0.75, 1.25),  # noqa: S311 - spreads retries, hides nothing
        )
    log.warning("webhook not delivered", **fields, error=error)
    return True
