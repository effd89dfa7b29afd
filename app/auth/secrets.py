"""The text of a key, `lw_<id>_<secret>`, and of a browser's session, `lws_<id>_<secret>`. Only an
HMAC of either is stored.

The secret has 256 random bits, so no slow hash is needed. The pepper is a secret of the server: who
gets only the database cannot check guesses against it.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from uuid import UUID

from app.auth.errors import ForeignToken, KeyMalformed, PepperBroken, SessionEnded
from app.settings import Settings

_PEPPER_LENGTH = 64  # hex digits


@dataclass(frozen=True, slots=True)
class Token:
    """A key or a session as it is sent. `repr` does not show the secret."""

    id: UUID
    text: str

    def __repr__(self) -> str:
        return f"Token({self.id})"

    def digest(self, pepper: bytes) -> str:
        """Hex HMAC-SHA256 of the whole text."""
        return hmac.new(pepper, self.text.encode(), hashlib.sha256).hexdigest()

    def derived(self, pepper: bytes, purpose: str) -> str:
        """A secret for one purpose that tells nothing of the key."""
        return hmac.new(pepper, f"{purpose}:{self.text}".encode(), hashlib.sha256).hexdigest()


def new_token(key_id: UUID) -> Token:
    """A fresh key for a row."""
    return Token(id=key_id, text=f"lw_{key_id.hex}_{secrets.token_urlsafe(32)}")


def new_session_token(session_id: UUID) -> Token:
    """A fresh secret for a browser that signs in."""
    return Token(id=session_id, text=f"lws_{session_id.hex}_{secrets.token_urlsafe(32)}")


def parse_session(text: str) -> Token:
    """Read the token of a session. Raises `SessionEnded`, which does not repeat what was sent."""
    if not text.startswith("lws_"):
        raise SessionEnded()
    try:
        return Token(id=parse(text.replace("lws_", "lw_", 1)).id, text=text)
    except KeyMalformed as error:
        raise SessionEnded() from error


def parse(text: str) -> Token:
    """Read a key. Raises `ForeignToken`, `KeyMalformed`; neither repeats what was sent."""
    if text.startswith("hf_"):
        raise ForeignToken()
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != "lw" or not text.isascii():
        raise KeyMalformed(problem="but it does not start with `lw_`")
    if len(key_id) != 32 or len(secret) != 43:
        raise KeyMalformed(problem="but it is cut off or changed")
    try:
        return Token(id=UUID(hex=key_id), text=text)
    except ValueError as error:
        raise KeyMalformed(problem="but it is cut off or changed") from error


def load_pepper(settings: Settings) -> bytes:
    """The server's secret: from the settings, or a file that is made on first use (mode 0600).

    Raises `PepperBroken`.
    """
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.data_dir / "pepper"
    draft = settings.data_dir / f".pepper-{os.getpid()}-{secrets.token_hex(4)}"
    if not path.exists():
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_PEPPER_LENGTH // 2))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename it never replaces the file of a faster process
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    pepper = path.read_bytes().strip()
    if len(pepper) != _PEPPER_LENGTH:
        raise PepperBroken(problem="is not the 64 hex digits that were written")
    if path.stat().st_mode & 0o077:
        raise PepperBroken(problem="can be read by others (its mode must be 0600)")
    return pepper
