"""Database, store and queue of a process: opened here for the API, worker and command line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from app.database.engines import Database, open_database
from app.errors import DataDirectoryUnusable
from app.queue.dispatch import WorkerNotifier, open_worker_notifier
from app.settings import Settings
from app.storage.errors import StoreUrlInvalid
from app.storage.local import LocalStore
from app.storage.s3 import S3Store
from app.storage.store import Store
from app.storage.verified_cache import VerifiedCache


@dataclass(frozen=True)
class Resources:
    """The settings, and the resources that were opened from them."""

    settings: Settings
    database: Database
    store: Store
    notifier: WorkerNotifier

    def close(self) -> None:
        """Close notifier and database."""
        self.notifier.close()
        self.database.close()


@contextmanager
def convert_data_dir_errors(settings: Settings) -> Iterator[None]:
    """Raise any `OSError` of the block as `DataDirectoryUnusable`."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}: {settings.data_dir}"
        raise DataDirectoryUnusable(reason=reason) from error


def open_resources(settings: Settings) -> Resources:
    """Open database, store and notifier. This neither migrates nor checks the schema.

    Raises `DataDirectoryUnusable` and the errors of `open_database`, `open_store` and
    `open_worker_notifier`.
    """
    with convert_data_dir_errors(settings):
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(settings)
    try:
        return Resources(
            settings=settings,
            database=database,
            store=open_store(settings),
            notifier=open_worker_notifier(settings),
        )
    except BaseException:
        database.close()
        raise


def open_store(settings: Settings) -> Store:
    """Return the store of the settings. Raises `StoreUrlInvalid`."""
    if not settings.store_url:
        return LocalStore(settings.artifacts_dir)
    url = _parse_store_url(settings.store_url)
    if url.scheme == "file":
        return LocalStore(Path(unquote(url.path)))
    return S3Store(url.netloc, url.path.strip("/"), cache=open_store_cache(settings))


def open_store_cache(settings: Settings) -> VerifiedCache:
    """Return this host's cache of the objects of a bucket."""
    return VerifiedCache(settings.data_dir / "cache" / "store", limit=settings.store_cache_bytes)


def _parse_store_url(text: str) -> SplitResult:
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
