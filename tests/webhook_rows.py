"""Create webhooks as the API does, and read and change their deliveries."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import now
from app.database.engines import Database
from app.idempotency.service import IdempotentRequest
from app.outbox.tables import WebhookDelivery, WebhookEndpoint
from app.resources import Resources
from app.webhooks import service
from app.webhooks.schemas import DeliveryView, WebhookCreate, WebhookView
from tests.webhook_receiver import ALLOWED

CALL = IdempotentRequest(LOCAL_KEY_ID, "POST /v1/webhooks", None, None, 1.0)


def create_webhook(resources: Resources, url: str, **fields: Any) -> WebhookView:
    """Create a webhook that may send to this machine."""
    body = WebhookCreate.model_validate({"url": url, **fields})
    settings = resources.settings.model_copy(update={"webhook_allowed_hosts": ALLOWED})
    with resources.database.write() as session:
        return service.create_webhook(session, body=body, settings=settings, call=CALL)


def send_test_event(database: Database, webhook_id: UUID) -> DeliveryView:
    with database.write() as session:
        return service.queue_test_event(session, webhook_id=webhook_id)


def replay(database: Database, delivery: WebhookDelivery) -> None:
    with database.write() as session:
        service.replay_delivery(session, webhook_id=delivery.endpoint_id, delivery_id=delivery.id)


def deliveries(database: Database) -> list[WebhookDelivery]:
    """Return all deliveries, the oldest first."""
    with database.read() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


def endpoint(database: Database, webhook_id: UUID) -> WebhookEndpoint:
    with database.read() as session:
        return session.get_one(WebhookEndpoint, webhook_id)


def update_delivery(database: Database, **values: Any) -> None:
    """Change every delivery, such as what time alone would change."""
    with database.write() as session:
        session.execute(update(WebhookDelivery).values(**values))


def make_due(database: Database) -> None:
    """Let the wait for the next attempt and every lease run out."""
    update_delivery(database, next_attempt_at=now() - 1, lease_expires_at=None)
