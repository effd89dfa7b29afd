"""Response bodies of webhooks, made from their rows."""

import json

from app.outbox.tables import WebhookDelivery, WebhookEndpoint
from app.webhooks.schemas import DeliveryView, WebhookView


def webhook_view(endpoint: WebhookEndpoint, *, secret: str | None = None) -> WebhookView:
    """Return the webhook, with its secret only when that was just generated."""
    columns = WebhookView.model_fields.keys() - {"secret"}
    return WebhookView(**{name: getattr(endpoint, name) for name in columns}, secret=secret)


def delivery_view(delivery: WebhookDelivery) -> DeliveryView:
    """Return the delivery with its body as an object."""
    columns = DeliveryView.model_fields.keys() - {"payload"}
    return DeliveryView(
        **{name: getattr(delivery, name) for name in columns}, payload=json.loads(delivery.body)
    )
