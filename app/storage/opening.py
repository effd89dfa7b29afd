"""From `LORAWORKS_STORE_URL` to a store. Nothing is reached before it is used."""

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from app.settings import Settings
from app.storage.errors import StoreUrlInvalid
from app.storage.local import LocalStore
from app.storage.s3 import RemoteStore
from app.storage.store import Store
from app.storage.verified_cache import Cache


def open_store(settings: Settings) -> Store:
    """The store that the settings name. Raises `StoreUrlInvalid`."""
    if not settings.store_url:
        return LocalStore(settings.artifacts_dir)
    url = _parse(settings.store_url)
    if url.scheme == "file":
        return LocalStore(Path(unquote(url.path)))
    return RemoteStore(url.netloc, url.path.strip("/"), cache=open_cache(settings))


def open_cache(settings: Settings) -> Cache:
    """Where this machine keeps copies of what a bucket holds."""
    return Cache(settings.data_dir / "cache" / "store", limit=settings.store_cache_bytes)


def _parse(address: str) -> SplitResult:
    """Messages tell nothing of the address itself: somebody may have put a secret into it."""
    try:
        url = urlsplit(address)
    except ValueError as error:
        raise StoreUrlInvalid(problem="cannot be read") from error
    if url.scheme not in ("s3", "file"):
        raise StoreUrlInvalid(problem=f"has the scheme {url.scheme[:20]!r}")
    if "@" in url.netloc or url.query or url.fragment:
        raise StoreUrlInvalid(
            problem="holds more than a place; credentials belong into AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    if url.scheme == "s3" and not url.netloc:
        raise StoreUrlInvalid(problem="names no bucket")
    if url.scheme == "file" and (url.netloc or not re.match("/+[^/]", url.path)):
        raise StoreUrlInvalid(problem="names no folder of this machine")
    return url
