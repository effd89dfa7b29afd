"""Secrets and signatures of Standard Webhooks (standardwebhooks.com), which OpenAI uses as well."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix, not a secret
SECRET_BYTES = 32


def new_secret() -> str:
    """Generate a signing secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(
    body: bytes, *, event_id: str, timestamp: int, secrets: Sequence[str]
) -> dict[str, str]:
    """Return the headers of a request, with a signature by each secret.

    Receivers reject a `timestamp` that is over five minutes old, so each attempt is signed anew.
    """
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            _signature(f"{event_id}.{timestamp}.".encode() + body, secret) for secret in secrets
        ),
    }


def _signature(content: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
