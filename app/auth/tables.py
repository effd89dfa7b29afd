"""API keys with their scopes, and the browser sessions that were started with one.

Keys have scopes but own nothing: one installation serves one team.
"""

from typing import Literal, get_args
from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, new_id, now

Scope = Literal[
    "jobs:read",
    "jobs:write",
    "datasets:read",
    "datasets:write",
    "models:read",
    "models:admin",
    "predict",
    "predictions:read",
    "predictions:write",
    "feedback:write",
    "labels:read",
    "labels:write",
    "metrics:read",
    "webhooks:admin",
]
ALL_SCOPES: tuple[Scope, ...] = get_args(Scope)
LOCAL_KEY_ID = UUID(int=0)  # the caller while auth is off; inserted by the first migration


class ApiKey(Base):
    """An API key, stored as an HMAC. The row `local` is the caller while authentication is off."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(64))
    secret_hmac: Mapped[str | None] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Double, default=now())
    expires_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)


class BrowserSession(Base):
    """A signed-in browser. It has the scopes of its API key, and ends when the key does."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    secret_hmac: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Double, default=now())
    last_used_at: Mapped[float] = mapped_column(Double, default=now())
    expires_at: Mapped[float] = mapped_column(Double)
