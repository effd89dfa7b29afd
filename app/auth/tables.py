"""Tables of API keys, and of the browser sessions that were started with one."""

from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, new_id
from app.database.clock import now

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
