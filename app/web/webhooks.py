"""Webhooks: create them, and see and replay their deliveries."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep
from app.http.pagination import decode_cursor, split_page
from app.outbox.enums import DeliveryState, EventType
from app.web.page import BlankAsNone, ListPageQuery, render_template
from app.webhooks import repository
from app.webhooks.routes import WebhookId
from app.webhooks.service import MAX_WEBHOOKS
from app.webhooks.views import delivery_view, webhook_view

PAGE_SIZE = 50

router = APIRouter(include_in_schema=False, dependencies=[require_scope("webhooks:admin")])


class DeliveryListQuery(ListPageQuery):
    """The filters of the deliveries."""

    state: Annotated[DeliveryState | None, BlankAsNone] = None


@router.get("/webhooks")
def webhooks_page(request: Request, database: DatabaseDep) -> HTMLResponse:
    """Show the form that creates a webhook, and all webhooks, newest first."""
    with database.read() as session:
        found = repository.list_endpoints(session, after=None, limit=MAX_WEBHOOKS)
        webhooks = [webhook_view(row) for row in found]
    return render_template(request, "webhooks.html", webhooks=webhooks, event_types=list(EventType))


@router.get("/webhooks/{webhook_id}")
def webhook_page(
    request: Request,
    webhook_id: WebhookId,
    database: DatabaseDep,
    query: Annotated[DeliveryListQuery, Query()],
) -> HTMLResponse:
    """Show a webhook with its deliveries, newest first."""
    with database.read() as session:
        webhook = webhook_view(repository.get_endpoint(session, webhook_id))
        found = repository.list_deliveries(
            session,
            webhook_id,
            after=decode_cursor(query.after),
            limit=PAGE_SIZE + 1,
            state=query.state,
        )
        rows, following = split_page(found, PAGE_SIZE)
        deliveries = [delivery_view(row) for row in rows]
    return render_template(
        request,
        "webhook.html",
        webhook=webhook,
        deliveries=deliveries,
        states=list(DeliveryState),
        query=query,
        next=following,
    )
