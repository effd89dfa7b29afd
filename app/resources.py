"""Database, store and queue of a process: opened here for the API, worker and command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.database.engines import Database, open_database
from app.errors import DataDirectoryUnusable
from app.queue.dispatch import JobQueue, open_queue
from app.settings import Settings
from app.storage.opening import open_store
from app.storage.store import Store


@dataclass(frozen=True)
class Resources:
    """The settings, and the resources that were opened from them."""

    settings: Settings
    database: Database
    store: Store
    queue: JobQueue

    def close(self) -> None:
        """Close the queue and the database."""
        self.queue.close()
        self.database.close()


@contextmanager
def data_dir_errors(settings: Settings) -> Iterator[None]:
    """Raise any `OSError` of the block as `DataDirectoryUnusable`."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}: {settings.data_dir}"
        raise DataDirectoryUnusable(reason=reason) from error


def open_resources(settings: Settings) -> Resources:
    """Open database, store and queue. This neither migrates nor checks the schema.

    Raises `DataDirectoryUnusable` and the errors of `open_database`, `open_store` and `open_queue`.
    """
    with data_dir_errors(settings):
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(settings)
    try:
        return Resources(
            settings=settings,
            database=database,
            store=open_store(settings),
            queue=open_queue(settings),
        )
    except BaseException:
        database.close()
        raise
