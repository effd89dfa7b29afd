"""Request and response bodies of the webhook routes."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field

from app.http.fields import CleanText, RequestModel, ResponseModel, Timestamp
from app.outbox.enums import DeliveryState, EventType


def _deduplicate(events: list[EventType]) -> list[EventType]:
    return list(dict.fromkeys(events))


Url = Annotated[str, CleanText(2048)]
Description = Annotated[str, CleanText(200)]
Events = Annotated[list[EventType], Field(min_length=1), AfterValidator(_deduplicate)]


class WebhookCreate(RequestModel):
    """A URL that receives events. Only `url` has no default."""

    url: Url = Field(
        description="An https URL with a public address. The setting "
        "`LORAWORKS_WEBHOOK_ALLOWED_HOSTS` lists exceptions."
    )
    description: Description | None = None
    events: Events | None = Field(default=None, description="Omitted or null: all events.")


class WebhookUpdate(RequestModel):
    """Changes to a webhook. Omitted fields stay unchanged."""

    url: Url | None = Field(default=None, description="Null: unchanged.")
    description: Description | None = Field(default=None, description="Null removes it.")
    events: Events | None = Field(default=None, description="Null: all events.")
    enabled: bool | None = Field(
        default=None,
        description="False: nothing is sent, and pending deliveries fail. Null: unchanged.",
    )


class WebhookView(ResponseModel):
    """A webhook."""

    id: UUID
    url: str
    description: str | None
    events: list[EventType] | None = Field(description="Null: all events.")
    enabled: bool
    disabled_reason: str | None = Field(description="Why the service disabled it.")
    secret: str | None = Field(
        default=None,
        description="The signing secret: only in the responses that create or rotate it.",
    )
    previous_secret_expires_at: Timestamp | None = Field(
        description="Until when requests have a second signature, by the secret before."
    )
    created_at: Timestamp


class DeliveryView(ResponseModel):
    """An event for one webhook, and the attempts to deliver it."""

    id: UUID
    event_id: str = Field(description="The header `webhook-id`, the same in every attempt.")
    type: str
    payload: dict[str, Any] = Field(description="The body of the request.")
    state: DeliveryState
    attempts: int
    last_status: int | None = Field(description="HTTP status of the last response.")
    last_error: str | None
    next_attempt_at: Timestamp | None
    created_at: Timestamp
    finished_at: Timestamp | None = Field(
        description="When it was delivered, or failed for the last time."
    )
