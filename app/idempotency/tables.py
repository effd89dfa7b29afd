"""The table of stored responses."""

from uuid import UUID

from sqlalchemy import Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject, now


class IdempotencyKey(Base):
    """An `Idempotency-Key` of one caller on one route, with its response."""

    __tablename__ = "idempotency_keys"

    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    route: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    location: Mapped[str | None] = mapped_column(String(255))
    response_body: Mapped[JsonObject]
    created_at: Mapped[float] = mapped_column(Double, default=now(), index=True)
