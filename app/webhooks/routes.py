"""Routes of webhooks: create, list, update, delete, rotate the secret, test, replay deliveries."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep, SettingsDep
from app.http.fields import uuid_or_not_found_validator
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, split_page
from app.idempotency import service as idempotency
from app.idempotency.header import IdempotencyDep
from app.outbox.enums import DeliveryState
from app.webhooks import repository, service
from app.webhooks.errors import DeliveryNotFound, WebhookNotFound
from app.webhooks.schemas import DeliveryView, WebhookCreate, WebhookUpdate, WebhookView
from app.webhooks.views import delivery_view, webhook_view

router = APIRouter(
    prefix="/v1/webhooks", tags=["webhooks"], dependencies=[require_scope("webhooks:admin")]
)

WebhookId = Annotated[
    UUID, uuid_or_not_found_validator(lambda text: WebhookNotFound(webhook_id=text))
]
DeliveryId = Annotated[
    UUID,
    uuid_or_not_found_validator(
        lambda text: DeliveryNotFound(webhook_id="of this URL", delivery_id=text)
    ),
]


@router.post("", status_code=status.HTTP_201_CREATED)
def create_webhook(
    body: WebhookCreate,
    response: Response,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
) -> WebhookView:
    """Create a webhook. Only this response has its secret."""
    call = build_idempotent_request(body.model_dump(mode="json", exclude_unset=True))
    with database.read() as session:
        idempotency.raise_if_replayed(session, call)
    with database.write() as session:
        webhook = service.create_webhook(session, body=body, settings=settings, call=call)
    response.headers["Location"] = service.webhook_url_path(webhook.id)
    return webhook


@router.get("")
def list_webhooks(
    database: DatabaseDep, limit: PageLimit = 20, after: PageCursor = None
) -> Page[WebhookView]:
    """List webhooks, the newest first."""
    with database.read() as session:
        found = repository.list_endpoints(session, after=decode_cursor(after), limit=limit + 1)
    rows, following = split_page(found, limit)
    return Page(data=[webhook_view(row) for row in rows], next=following)


@router.get("/{webhook_id}")
def get_webhook(webhook_id: WebhookId, database: DatabaseDep) -> WebhookView:
    """Get a webhook."""
    with database.read() as session:
        return webhook_view(repository.get_endpoint(session, webhook_id))


@router.patch("/{webhook_id}")
def update_webhook(
    webhook_id: WebhookId, body: WebhookUpdate, settings: SettingsDep, database: DatabaseDep
) -> WebhookView:
    """Change a webhook: its URL, description and events, and whether it is enabled."""
    with database.write() as session:
        return service.update_webhook(session, webhook_id=webhook_id, body=body, settings=settings)


@router.delete("/{webhook_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_webhook(webhook_id: WebhookId, database: DatabaseDep) -> None:
    """Delete a webhook with its deliveries."""
    with database.write() as session:
        service.delete_webhook(session, webhook_id=webhook_id)


@router.post("/{webhook_id}/rotate")
def rotate_webhook_secret(webhook_id: WebhookId, database: DatabaseDep) -> WebhookView:
    """Generate a new secret. For a day, requests have signatures by both secrets."""
    with database.write() as session:
        return service.rotate_secret(session, webhook_id=webhook_id)


@router.post("/{webhook_id}/test", status_code=status.HTTP_202_ACCEPTED)
def send_test_event(webhook_id: WebhookId, database: DatabaseDep) -> DeliveryView:
    """Send the event `webhook.test`, whatever the events of the webhook are."""
    with database.write() as session:
        return service.queue_test_event(session, webhook_id=webhook_id)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    webhook_id: WebhookId,
    database: DatabaseDep,
    limit: PageLimit = 20,
    after: PageCursor = None,
    state: Annotated[
        DeliveryState | None, Query(description="Only deliveries in this state.")
    ] = None,
) -> Page[DeliveryView]:
    """List the deliveries to a webhook, the newest first."""
    with database.read() as session:
        repository.get_endpoint(session, webhook_id)
        found = repository.list_deliveries(
            session, webhook_id, after=decode_cursor(after), limit=limit + 1, state=state
        )
    rows, following = split_page(found, limit)
    return Page(data=[delivery_view(row) for row in rows], next=following)


@router.post("/{webhook_id}/deliveries/{delivery_id}/replay", status_code=status.HTTP_202_ACCEPTED)
def replay_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, database: DatabaseDep
) -> DeliveryView:
    """Send an event again, with the same id. Like a new one, it is retried for a day."""
    with database.write() as session:
        return service.replay_delivery(session, webhook_id=webhook_id, delivery_id=delivery_id)
