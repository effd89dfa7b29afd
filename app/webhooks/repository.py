"""SQL on webhook endpoints and deliveries.

A worker claims a delivery with a lease before it sends it, so that no other worker sends it at the
same time. The lease of a worker that died runs out, and the delivery is sent again: receivers may
get an event more than once, always with the same id. Only the database clock is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, delete, func, literal, null, or_, select, update
from sqlalchemy.orm import Session

from app.database.base import now, read_clock
from app.outbox.enums import DeliveryState
from app.outbox.repository import GIVE_UP_AFTER_SECONDS
from app.outbox.tables import WebhookDelivery, WebhookEndpoint
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.transitions import backoff_expression
from app.webhooks.errors import DeliveryNotFound, WebhookNotFound

FIRST_RETRY_SECONDS = 5.0  # doubles with each failure
MAX_RETRY_SECONDS = 10_800.0
LEASE_SECONDS = 120.0  # longer than resolving a name and sending a request can take


@dataclass(frozen=True)
class ClaimedDelivery:
    """A delivery that this worker may send now."""

    id: UUID
    endpoint_id: UUID
    attempt: int
    event_id: str
    body: str
    url: str
    secrets: Sequence[str]
    timestamp: int


# Endpoints


def get_endpoint(session: Session, endpoint_id: UUID) -> WebhookEndpoint:
    """Return an endpoint. Raises `WebhookNotFound`."""
    endpoint = session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None:
        raise WebhookNotFound(webhook_id=endpoint_id)
    return endpoint


def lock_endpoint(session: Session, endpoint_id: UUID, *, shared: bool = False) -> WebhookEndpoint:
    """Return an endpoint that nobody else changes until the end of the transaction.

    Raises `WebhookNotFound`.
    """
    statement = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id)
    endpoint = session.scalars(
        statement.with_for_update(read=shared), execution_options={"populate_existing": True}
    ).one_or_none()
    if endpoint is None:
        raise WebhookNotFound(webhook_id=endpoint_id)
    return endpoint


def list_endpoints(
    session: Session, *, after: UUID | None, limit: int
) -> Sequence[WebhookEndpoint]:
    """Return endpoints, the newest first."""
    statement = select(WebhookEndpoint).order_by(WebhookEndpoint.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(WebhookEndpoint.id < after)
    return session.scalars(statement).all()


def count_endpoints(session: Session) -> int:
    """Return the number of endpoints."""
    return session.scalars(select(func.count()).select_from(WebhookEndpoint)).one()


def delete_endpoint(session: Session, endpoint_id: UUID) -> None:
    """Delete an endpoint; its deliveries are deleted by the foreign key.

    Raises `WebhookNotFound`.
    """
    deleted = session.scalars(
        delete(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id)
        .returning(WebhookEndpoint.id),
        execution_options=NO_SESSION_SYNC,
    ).first()
    if deleted is None:
        raise WebhookNotFound(webhook_id=endpoint_id)


def fail_pending_deliveries(session: Session, endpoint_id: UUID, *, error: str) -> None:
    """End the deliveries that are pending. A replay makes them pending again."""
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.state == DeliveryState.PENDING,
        )
        .values(**_ended(DeliveryState.FAILED), last_error=error),
        execution_options=NO_SESSION_SYNC,
    )


# Deliveries


def list_deliveries(
    session: Session,
    endpoint_id: UUID,
    *,
    after: UUID | None,
    limit: int,
    state: DeliveryState | None = None,
) -> Sequence[WebhookDelivery]:
    """Return deliveries to an endpoint, the newest first."""
    statement = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    if after is not None:
        statement = statement.where(WebhookDelivery.id < after)
    if state is not None:
        statement = statement.where(WebhookDelivery.state == state)
    return session.scalars(statement.order_by(WebhookDelivery.id.desc()).limit(limit)).all()


def get_delivery(session: Session, endpoint_id: UUID, delivery_id: UUID) -> WebhookDelivery:
    """Return a delivery to this endpoint. Raises `DeliveryNotFound`."""
    delivery = session.get(WebhookDelivery, delivery_id, populate_existing=True)
    if delivery is None or delivery.endpoint_id != endpoint_id:
        raise DeliveryNotFound(webhook_id=endpoint_id, delivery_id=delivery_id)
    return delivery


def requeue_delivery(session: Session, delivery_id: UUID) -> None:
    """Make a delivery due now, and retry it for a day. One that is being sent is left as it is."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, _IS_FREE)
        .values(
            state=DeliveryState.PENDING,
            next_attempt_at=now(),
            retry_until=now() + GIVE_UP_AFTER_SECONDS,
            failures=0,
            finished_at=null(),
        ),
        execution_options=NO_SESSION_SYNC,
    )


def make_all_pending_deliveries_due(session: Session) -> None:
    """Make every delivery due now that waits: after a clock step it might wait for hours."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.lease_expires_at > now() + LEASE_SECONDS)
        .values(lease_expires_at=null()),
        execution_options=NO_SESSION_SYNC,
    )
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.state == DeliveryState.PENDING, WebhookDelivery.next_attempt_at > now()
        )
        .values(next_attempt_at=now()),
        execution_options=NO_SESSION_SYNC,
    )


def list_due_endpoint_ids(session: Session) -> Sequence[UUID]:
    """Return the endpoints with a delivery that is due."""
    due = select(WebhookDelivery.endpoint_id).where(_IS_DUE).distinct()
    return session.scalars(due).all()


def claim_due_delivery(session: Session, endpoint_id: UUID) -> ClaimedDelivery | None:
    """Claim the delivery to this endpoint that has been due for longest. None: none is due."""
    best = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.endpoint_id == endpoint_id, _IS_DUE)
        .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # no effect on SQLite, which has a single writer
        .cte("best")
    )
    row = session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == best.c.id, _IS_DUE)
        .values(attempts=WebhookDelivery.attempts + 1, lease_expires_at=now() + LEASE_SECONDS)
        .returning(
            *(WebhookDelivery.id, WebhookDelivery.attempts),
            *(WebhookDelivery.event_id, WebhookDelivery.body),
        ),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    if row is None:
        return None
    endpoint = get_endpoint(session, endpoint_id)
    clock = read_clock(session)
    secrets = [endpoint.secret]
    if endpoint.previous_secret and (endpoint.previous_secret_expires_at or 0.0) > clock:
        secrets.append(endpoint.previous_secret)
    return ClaimedDelivery(
        id=row.id,
        endpoint_id=endpoint_id,
        attempt=row.attempts,
        event_id=row.event_id,
        body=row.body,
        url=endpoint.url,
        secrets=secrets,
        timestamp=int(clock),
    )


def record_success(session: Session, claimed: ClaimedDelivery, *, status: int | None) -> None:
    """Record that the receiver accepted the event, even if the webhook was disabled meanwhile."""
    values = {**_ended(DeliveryState.DELIVERED), "last_status": status, "last_error": null()}
    session.execute(
        update(WebhookDelivery).where(*_of_attempt(claimed)).values(values),
        execution_options=NO_SESSION_SYNC,
    )


def record_failure(
    session: Session,
    claimed: ClaimedDelivery,
    *,
    status: int | None,
    error: str,
    jitter: float,
) -> None:
    """Record a failed attempt, and schedule the next one, which waits `jitter` times as long.

    The delivery fails if that would be after the end of its retries.
    """
    delay = backoff_expression(
        FIRST_RETRY_SECONDS, WebhookDelivery.failures, max_seconds=MAX_RETRY_SECONDS
    ) * literal(jitter)
    next_attempt_at = now() + delay
    given_up = next_attempt_at > WebhookDelivery.retry_until
    session.execute(
        update(WebhookDelivery)
        .where(*_of_attempt(claimed), WebhookDelivery.state == DeliveryState.PENDING)
        .values(
            state=case((given_up, DeliveryState.FAILED), else_=DeliveryState.PENDING),
            next_attempt_at=case((given_up, null()), else_=next_attempt_at),
            finished_at=case((given_up, now()), else_=null()),
            lease_expires_at=null(),
            failures=WebhookDelivery.failures + 1,
            last_status=status,
            last_error=error,
        ),
        execution_options=NO_SESSION_SYNC,
    )


def fail_overdue_endpoint_deliveries(
    session: Session, claimed: ClaimedDelivery, *, error: str
) -> None:
    """Fail the other deliveries to the endpoint of a failed attempt that were due for a day.

    Each of them would take as long as this attempt. Without a limit, a receiver that is down for
    good would have more of them every day.
    """
    overdue = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.endpoint_id == claimed.endpoint_id,
            WebhookDelivery.retry_until < now(),
            _IS_DUE,
        )
        .with_for_update(skip_locked=True)  # no effect on SQLite, which has a single writer
    )
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(overdue))
        .values(**_ended(DeliveryState.FAILED), last_error=error),
        execution_options=NO_SESSION_SYNC,
    )


def _of_attempt(claimed: ClaimedDelivery) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which no other attempt has followed."""
    return (WebhookDelivery.id == claimed.id, WebhookDelivery.attempts == claimed.attempt)


def _ended(state: DeliveryState) -> dict[str, Any]:
    return {
        "state": state,
        "next_attempt_at": null(),
        "lease_expires_at": null(),
        "finished_at": now(),
    }


_IS_FREE = or_(WebhookDelivery.lease_expires_at.is_(None), WebhookDelivery.lease_expires_at < now())
_IS_DUE = and_(
    WebhookDelivery.state == DeliveryState.PENDING,
    WebhookDelivery.next_attempt_at <= now(),
    _IS_FREE,
)
