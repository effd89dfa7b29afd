"""Everything a process needs, opened in one place for the API, the worker and the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.database.engines import Database, open_database
from app.errors import DataFolderUnusable
from app.queue.dispatch import JobQueue, open_queue
from app.settings import Settings
from app.storage.opening import open_store
from app.storage.store import Store


@dataclass(frozen=True)
class Resources:
    """Settings and what was opened from them."""

    settings: Settings
    database: Database
    store: Store
    queue: JobQueue

    def close(self) -> None:
        """Give everything back."""
        self.queue.close()
        self.database.close()


@contextmanager
def using_data_folder(settings: Settings) -> Iterator[None]:
    """What the system refuses there becomes `DataFolderUnusable`."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}: {settings.data_dir}"
        raise DataFolderUnusable(reason=reason) from error


def open_resources(settings: Settings) -> Resources:
    """Open database, store and queue. Does not migrate and does not check the schema.

    Raises `DataFolderUnusable`, and what `open_database`, `open_store` and `open_queue` raise.
    """
    with using_data_folder(settings):
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
