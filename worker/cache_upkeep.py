"""Keeps the cache of this machine within its limits, and free of texts of deleted datasets.

Trainings cannot: they do not see which entries others have written. Neither can they write to the
directory that has the folders of the cache, so a folder is what the worker made, not a link.
"""

from app.datasets.repository import count_and_last_time_of_deletions
from app.resources import Resources
from app.retention.repository import get_database_identity
from lora_core.cache import (
    FOLDER_LIMITS,
    NAMED_FOLDERS,
    cache_dir,
    delete_derived_from_texts,
    delete_unfinished,
    evict_least_recently_used,
)

POLL_SECONDS = 60.0
LAST_DELETION_FILE = "last-deletion"  # that the cache was cleared for: number and time


def tidy_cache(resources: Resources) -> None:
    """Evict what is over a limit or unfinished.

    Delete what was derived from texts if a dataset was deleted. Of that no entry is kept: which
    dataset it belongs to is unknown.
    """
    for folder in NAMED_FOLDERS:
        delete_unfinished(cache_dir() / folder)
    for folder, limit in FOLDER_LIMITS.items():
        evict_least_recently_used(cache_dir() / folder, limit)
    with resources.database.read() as session:
        count, deleted_at = count_and_last_time_of_deletions(session)
        database = get_database_identity(session).replace(" ", "-")  # services may share the cache
    deletions = f"{count} {deleted_at}"
    cleared_for = cache_dir() / f"{LAST_DELETION_FILE}-in-{database}"
    if count == 0 or (cleared_for.exists() and cleared_for.read_text() == deletions):
        return
    delete_derived_from_texts()
    cache_dir().mkdir(parents=True, exist_ok=True)
    cleared_for.write_text(deletions)
