"""Operations on webhooks and their deliveries."""

import random
from functools import partial
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.base import read_clock
from app.database.engines import acquire_transaction_lock, call_after_commit
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.outbox import repository as outbox
from app.outbox.enums import TEST_EVENT
from app.outbox.tables import WebhookEndpoint
from app.settings import Settings
from app.webhooks import repository
from app.webhooks.errors import TooManyWebhooks, WebhookDisabled, WebhookNotFound
from app.webhooks.repository import ClaimedDelivery
from app.webhooks.schemas import DeliveryView, WebhookCreate, WebhookUpdate, WebhookView
from app.webhooks.signing import new_secret
from app.webhooks.url_checks import AllowedHosts, check_webhook_url
from app.webhooks.views import delivery_view, webhook_view

MAX_WEBHOOKS = 32  # a worker has a thread for each that has something due
_ROTATION_SECONDS = 86_400.0  # how long the secret before a rotation signs as well
_GONE = 410  # the receiver wants no more events
GONE_REASON = "The receiver answered with status 410 (Gone)."
_DISABLED_ERROR = "The webhook was disabled."


def create_webhook(
    session: Session, *, body: WebhookCreate, settings: Settings, call: IdempotentRequest
) -> WebhookView:
    """Create a webhook. The response that is stored for a retry lacks the secret.

    Raises `TooManyWebhooks`, and what `check_webhook_url` and `idempotency.reserve` raise.
    """
    idempotency.reserve(session, call)
    check_webhook_url(body.url, AllowedHosts(settings.webhook_allowed_hosts))
    acquire_transaction_lock(session, "webhooks")
    if repository.count_endpoints(session) >= MAX_WEBHOOKS:
        raise TooManyWebhooks(limit=MAX_WEBHOOKS)
    endpoint = WebhookEndpoint(
        created_by=call.caller_id,
        url=body.url,
        description=body.description,
        events=body.events,
        secret=new_secret(),
    )
    session.add(endpoint)
    session.flush()
    idempotency.save_response(
        session,
        call,
        status=201,
        body=webhook_view(endpoint),
        location=webhook_url_path(endpoint.id),
    )
    _audit(session, "webhook_created", endpoint.id)
    return webhook_view(endpoint, secret=endpoint.secret)


def update_webhook(
    session: Session, *, webhook_id: UUID, body: WebhookUpdate, settings: Settings
) -> WebhookView:
    """Change the fields that the body has. Pending deliveries of a disabled webhook fail.

    Raises `WebhookNotFound`, and what `check_webhook_url` raises.
    """
    endpoint = repository.lock_endpoint(session, webhook_id)
    if body.url is not None:
        check_webhook_url(body.url, AllowedHosts(settings.webhook_allowed_hosts))
        endpoint.url = body.url
    for name in {"description", "events"} & body.model_fields_set:
        setattr(endpoint, name, getattr(body, name))
    if body.enabled is not None:
        endpoint.enabled, endpoint.disabled_reason = body.enabled, None
    session.flush()
    if not endpoint.enabled:
        repository.fail_pending_deliveries(session, webhook_id, error=_DISABLED_ERROR)
    _audit(session, "webhook_updated", webhook_id)
    return webhook_view(endpoint)


def delete_webhook(session: Session, *, webhook_id: UUID) -> None:
    """Delete a webhook with its deliveries. Raises `WebhookNotFound`."""
    repository.delete_endpoint(session, webhook_id)
    _audit(session, "webhook_deleted", webhook_id)


def rotate_secret(session: Session, *, webhook_id: UUID) -> WebhookView:
    """Generate a new secret. The one before it signs as well for a day.

    Raises `WebhookNotFound`.
    """
    endpoint = repository.lock_endpoint(session, webhook_id)
    endpoint.previous_secret = endpoint.secret
    endpoint.previous_secret_expires_at = read_clock(session) + _ROTATION_SECONDS
    endpoint.secret = new_secret()
    session.flush()
    _audit(session, "webhook_secret_rotated", webhook_id)
    return webhook_view(endpoint, secret=endpoint.secret)


def queue_test_event(session: Session, *, webhook_id: UUID) -> DeliveryView:
    """Queue the event `webhook.test`. Raises `WebhookNotFound`, `WebhookDisabled`."""
    endpoint = _lock_enabled(session, webhook_id)
    data = {"id": str(endpoint.id), "description": endpoint.description}
    return delivery_view(outbox.publish_event_to_endpoint(session, endpoint.id, TEST_EVENT, data))


def replay_delivery(session: Session, *, webhook_id: UUID, delivery_id: UUID) -> DeliveryView:
    """Send a delivery again as soon as possible, with the same id, and retry it for a day.

    Raises `WebhookNotFound`, `DeliveryNotFound`, `WebhookDisabled`.
    """
    _lock_enabled(session, webhook_id)
    repository.get_delivery(session, webhook_id, delivery_id)
    repository.requeue_delivery(session, delivery_id)
    return delivery_view(repository.get_delivery(session, webhook_id, delivery_id))


def handle_failed_delivery(
    session: Session, claimed: ClaimedDelivery, *, status: int | None, error: str
) -> None:
    """Record a failed attempt, and end what is not retried any more.

    These are the deliveries that are over a day old, and all those to a receiver that answered that
    it is gone, whose webhook is disabled unless it has another URL by now.
    """
    jitter = random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, hides nothing
    try:
        # Before its deliveries, as a deletion does: otherwise each could wait for the other.
        endpoint = (
            repository.lock_endpoint(session, claimed.endpoint_id) if status == _GONE else None
        )
    except WebhookNotFound:  # deleted in the meantime, with its deliveries
        return
    repository.record_failure(session, claimed, status=status, error=error, jitter=jitter)
    repository.fail_overdue_endpoint_deliveries(session, claimed, error=error)
    if endpoint is not None and endpoint.url == claimed.url:
        endpoint.enabled, endpoint.disabled_reason = False, GONE_REASON
        repository.fail_pending_deliveries(session, endpoint.id, error=GONE_REASON)
        _audit(session, "webhook_disabled", endpoint.id)


def webhook_url_path(webhook_id: UUID) -> str:
    """Return the path of a webhook."""
    return f"/v1/webhooks/{webhook_id}"


def _lock_enabled(session: Session, webhook_id: UUID) -> WebhookEndpoint:
    endpoint = repository.lock_endpoint(session, webhook_id, shared=True)
    if not endpoint.enabled:
        raise WebhookDisabled(webhook_id=webhook_id)
    return endpoint


def _audit(session: Session, action: str, webhook_id: UUID) -> None:
    call_after_commit(
        session, partial(logging.write_audit_line, action, webhook_id=str(webhook_id))
    )
