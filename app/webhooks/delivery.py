"""Delivers events: one attempt of one delivery, from the claim to its result."""

from uuid import UUID

import structlog

from app.database.engines import Database
from app.errors import AppError
from app.settings import Settings
from app.webhooks import http_client, repository, service
from app.webhooks.repository import ClaimedDelivery
from app.webhooks.signing import signed_headers
from app.webhooks.url_checks import AllowedHosts, Resolver, resolve_host

log = structlog.get_logger(__name__)


def deliver_next(
    database: Database, settings: Settings, endpoint_id: UUID, resolve: Resolver = resolve_host
) -> bool:
    """Send the next due delivery of an endpoint, and record the result. False: none is due.

    No transaction is open while the receiver is waited for. Raises `OUTAGE_ERRORS`: the delivery is
    then sent again when its lease has run out.
    """
    with database.write() as session:
        claimed = repository.claim_due_delivery(session, endpoint_id)
    if claimed is None:
        return False
    status, error = _send(claimed, settings, resolve)
    with database.write() as session:
        if error is None:
            repository.record_success(session, claimed, status=status)
        else:
            service.handle_failed_delivery(session, claimed, status=status, error=error)
    fields = {"webhook_id": str(endpoint_id), "event_id": claimed.event_id}
    if error is None:
        log.info("webhook delivered", **fields)
    else:
        log.warning("webhook not delivered", **fields, error=error)
    return True


def _send(
    claimed: ClaimedDelivery, settings: Settings, resolve: Resolver
) -> tuple[int | None, str | None]:
    """Return the status of the response, if there was one, and what went wrong, if anything."""
    body = claimed.body.encode()
    headers = signed_headers(
        body, event_id=claimed.event_id, timestamp=claimed.timestamp, secrets=claimed.secrets
    )
    allowed = AllowedHosts(settings.webhook_allowed_hosts)
    try:
        status = http_client.post_to_receiver(
            claimed.url, body, headers, allowed=allowed, resolve=resolve
        )
    except AppError as error:
        return None, str(error)
    if 200 <= status < 300:
        return status, None
    return status, f"The receiver answered with status {status}."
