"""Open the store of `LORAWORKS_STORE_URL`. It connects on first use only."""

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from app.settings import Settings
from app.storage.errors import StoreUrlInvalid
from app.storage.local import LocalStore
from app.storage.s3 import RemoteStore
from app.storage.store import Store
from app.storage.verified_cache import VerifiedCache


def open_store(settings: Settings) -> Store:
    """Return the store of the settings. Raises `StoreUrlInvalid`."""
    if not settings.store_url:
        return LocalStore(settings.artifacts_dir)
    url = _parse_url(settings.store_url)
    if url.scheme == "file":
        return LocalStore(Path(unquote(url.path)))
    return RemoteStore(url.netloc, url.path.strip("/"), cache=open_cache(settings))


def open_cache(settings: Settings) -> VerifiedCache:
    """Return this host's cache of the objects of a bucket."""
    return VerifiedCache(settings.data_dir / "cache" / "store", limit=settings.store_cache_bytes)


def _parse_url(text: str) -> SplitResult:
    """Parse the URL. Error messages do not repeat it, because it may contain a secret."""
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise StoreUrlInvalid(problem="is not a valid URL") from error
    if url.scheme not in ("s3", "file"):
        raise StoreUrlInvalid(problem=f"has the scheme {url.scheme[:20]!r}")
    if "@" in url.netloc or url.query or url.fragment:
        raise StoreUrlInvalid(
            problem="must not have credentials, a query or a fragment; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY instead"
        )
    if url.scheme == "s3" and not url.netloc:
        raise StoreUrlInvalid(problem="names no bucket")
    if url.scheme == "file" and (url.netloc or not re.match("/+[^/]", url.path)):
        raise StoreUrlInvalid(problem="names no directory on this host")
    return url
