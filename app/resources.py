"""Everything a process needs, opened in one place for the API, the worker and the command line."""

from dataclasses import dataclass

from app.artifacts.store import ArtifactStore, open_store
from app.db.engines import Database, open_database
from app.queue import JobQueue, open_queue
from app.settings import Settings


@dataclass(frozen=True)
class Resources:
    """Settings and what was opened from them."""

    settings: Settings
    database: Database
    store: ArtifactStore
    queue: JobQueue

    def close(self) -> None:
        """Give everything back."""
        self.database.close()


def open_resources(settings: Settings) -> Resources:
    """Open database, store and queue. Does not migrate and does not check the schema."""
    return Resources(
        settings=settings,
        database=open_database(settings),
        store=open_store(settings),
        queue=open_queue(settings),
    )
