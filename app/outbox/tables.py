"""Tables of webhook endpoints and of the deliveries to them."""

from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, Index, String, Text, UniqueConstraint, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, enum_check, new_id, now
from app.outbox.events import DeliveryState


class WebhookEndpoint(Base):
    """A URL that receives events."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(String(200))
    events: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))  # None: all of them
    secret: Mapped[str] = mapped_column(String(128))  # in plain text, because it signs
    previous_secret: Mapped[str | None] = mapped_column(String(128))  # signs too, while it rotates
    previous_secret_expires_at: Mapped[float | None] = mapped_column(Double)
    enabled: Mapped[bool] = mapped_column(default=True, server_default=true())
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=now())


class WebhookDelivery(Base):
    """An event for one endpoint: what is sent, and how the attempts to send it ended.

    `attempts` counts claims and fences the results, like that of a job.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    endpoint_id: Mapped[UUID] = mapped_column(
        ForeignKey("webhook_endpoints.id", ondelete="CASCADE")
    )
    event_id: Mapped[str] = mapped_column(String(64))  # the header `webhook-id` of every attempt
    type: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)  # as text, so that every attempt sends the same bytes
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # since the event or its last replay
    next_attempt_at: Mapped[float | None] = mapped_column(Double, default=now())
    retry_until: Mapped[float] = mapped_column(Double)
    lease_expires_at: Mapped[float | None] = mapped_column(Double)  # while a worker sends it
    last_status: Mapped[int | None]  # of the last response
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=now())
    finished_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (
        enum_check("state", tuple(DeliveryState), "state"),
        UniqueConstraint("event_id", "endpoint_id"),
        Index("ix_webhook_deliveries_list", "endpoint_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "next_attempt_at",
            "endpoint_id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )
