"""API keys, and the browsers that signed in with one."""

from uuid import UUID

from sqlalchemy import JSON, Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, new_id
from app.database.clock import now

LOCAL_KEY_ID = UUID(int=0)  # the caller while keys are off; inserted by the first migration


class ApiKey(Base):
    """A key is kept as an HMAC of its secret. The row `local` stands for a caller without a key."""

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
    """A browser that signed in. It reads with the scopes of its key, for as long as both last."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    secret_hmac: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Double, default=now())
    last_used_at: Mapped[float] = mapped_column(Double, default=now())
    expires_at: Mapped[float] = mapped_column(Double)
