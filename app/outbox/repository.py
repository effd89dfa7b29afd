"""Adds events to the outbox of webhooks, and jobs and changed models to that of MLflow.

The rows are part of the transaction that changes what the event is about: none is lost after
the commit, and none is sent after a rollback.
"""

import json
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.base import JsonObject, new_id, now, read_clock
from app.outbox.tables import (
    MlflowModelChange,
    MlflowRun,
    MlflowServer,
    WebhookDelivery,
    WebhookEndpoint,
)

GIVE_UP_AFTER_SECONDS = 86_400.0  # for how long a delivery is retried


def has_enabled_endpoints(session: Session) -> bool:
    """Return whether any event is sent to anybody. Without endpoints, events cost one query."""
    enabled = select(WebhookEndpoint.id).where(WebhookEndpoint.enabled).limit(1)
    return session.scalars(enabled).first() is not None


def publish_event(session: Session, event_type: str, data: JsonObject) -> None:
    """Add an event to the outbox of each endpoint that wants it. `data` has the field `id`.

    The endpoints are locked until the end of the transaction, so that none of them is deleted or
    disabled in between.
    """
    endpoints = session.execute(
        select(WebhookEndpoint.id, WebhookEndpoint.events)
        .where(WebhookEndpoint.enabled)
        .order_by(WebhookEndpoint.id)
        .with_for_update(read=True)
    ).all()
    wanted = [row.id for row in endpoints if row.events is None or event_type in row.events]
    if wanted:
        _add_deliveries(session, wanted, event_type, data)


def publish_event_to_endpoint(
    session: Session, endpoint_id: UUID, event_type: str, data: JsonObject
) -> WebhookDelivery:
    """Add an event to the outbox of one endpoint, whatever its filter, and return the delivery."""
    (delivery,) = _add_deliveries(session, [endpoint_id], event_type, data)
    session.flush()
    return delivery


def _add_deliveries(
    session: Session, endpoint_ids: list[UUID], event_type: str, data: JsonObject
) -> list[WebhookDelivery]:
    event_id = f"evt_{new_id().hex}"
    body = {
        "id": event_id,
        "object": "event",
        "created_at": int(read_clock(session)),
        "type": event_type,
        "data": data,
    }
    text = json.dumps(body, separators=(",", ":"))
    deliveries = [
        WebhookDelivery(
            endpoint_id=endpoint_id,
            event_id=event_id,
            type=event_type,
            body=text,
            retry_until=now() + GIVE_UP_AFTER_SECONDS,
        )
        for endpoint_id in endpoint_ids
    ]
    session.add_all(deliveries)
    return deliveries


def add_mlflow_run(session: Session, job_id: UUID) -> None:
    """Let workers send a new job to MLflow, if one of them knows where it is."""
    if _sends_to_mlflow(session):
        session.add(MlflowRun(id=job_id))


def add_mlflow_model_change(session: Session, model_id: UUID) -> None:
    """Let workers send the versions and aliases of a model to MLflow, likewise."""
    if _sends_to_mlflow(session):
        session.add(MlflowModelChange(model_id=model_id))


def _sends_to_mlflow(session: Session) -> bool:
    return session.scalars(select(MlflowServer.id)).first() is not None
