"""Tokens of API keys, `lw_<id>_<secret>`, and of browser sessions, `lws_<id>_<secret>`.

Only an HMAC of a token is stored. The secret has 256 random bits, so no slow hash is needed. The
pepper is a secret of the server: without it, a stolen database cannot be used to verify guesses.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from uuid import UUID

from app.auth.errors import HuggingFaceTokenSent, KeyMalformed, PepperFileInvalid, SessionInvalid
from app.settings import Settings

_PEPPER_LENGTH = 64  # hex digits


@dataclass(frozen=True, slots=True)
class Token:
    """The token of an API key or a session. Its `repr` hides the secret."""

    id: UUID
    text: str

    def __repr__(self) -> str:
        return f"Token({self.id})"

    def digest(self, pepper: bytes) -> str:
        """Return the HMAC-SHA256 of the token in hex."""
        return hmac.new(pepper, self.text.encode(), hashlib.sha256).hexdigest()

    def derive_secret(self, pepper: bytes, purpose: str) -> str:
        """Derive a secret for one purpose. It does not reveal the token."""
        return hmac.new(pepper, f"{purpose}:{self.text}".encode(), hashlib.sha256).hexdigest()


def new_key_token(key_id: UUID) -> Token:
    """Generate the token of an API key."""
    return Token(id=key_id, text=f"lw_{key_id.hex}_{secrets.token_urlsafe(32)}")


def new_session_token(session_id: UUID) -> Token:
    """Generate the token of a browser session."""
    return Token(id=session_id, text=f"lws_{session_id.hex}_{secrets.token_urlsafe(32)}")


def parse_session_token(text: str) -> Token:
    """Parse a session token. Raises `SessionInvalid`, which does not repeat the text."""
    if not text.startswith("lws_"):
        raise SessionInvalid()
    try:
        return Token(id=parse_api_key(text.replace("lws_", "lw_", 1)).id, text=text)
    except KeyMalformed as error:
        raise SessionInvalid() from error


def parse_api_key(text: str) -> Token:
    """Parse an API key. Raises `HuggingFaceTokenSent`, `KeyMalformed`; neither repeats the text."""
    if text.startswith("hf_"):
        raise HuggingFaceTokenSent()
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != "lw" or not text.isascii():
        raise KeyMalformed(problem="but it does not start with `lw_`")
    if len(key_id) != 32 or len(secret) != 43:
        raise KeyMalformed(problem="but it is truncated or altered")
    try:
        return Token(id=UUID(hex=key_id), text=text)
    except ValueError as error:
        raise KeyMalformed(problem="but it is truncated or altered") from error


def load_or_create_pepper(settings: Settings) -> bytes:
    """Return the pepper from the settings, or from a file that is created on first use (mode 0600).

    Raises `PepperFileInvalid`.
    """
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.data_dir / "pepper"
    temporary = settings.data_dir / f".pepper-{os.getpid()}-{secrets.token_hex(4)}"
    if not path.exists():
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_PEPPER_LENGTH // 2))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces another process's file
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    pepper = path.read_bytes().strip()
    if len(pepper) != _PEPPER_LENGTH:
        raise PepperFileInvalid(problem="does not contain the expected 64 hex digits")
    if path.stat().st_mode & 0o077:
        raise PepperFileInvalid(problem="is readable by other users (its mode must be 0600)")
    return pepper
