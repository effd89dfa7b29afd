"""Keeps the cache of this machine within its limits, and free of texts of deleted datasets.

Trainings cannot: they do not see which entries others have written. Neither can they write to the
directory that has the folders of the cache, so a folder is what the worker made, not a link.
"""

from app.datasets.repository import time_of_last_deletion
from app.resources import Resources
from lora_core.cache import (
    FOLDER_LIMITS,
    NAMED_FOLDERS,
    cache_dir,
    delete_derived_from_texts,
    delete_unfinished,
    evict_least_recently_used,
)

POLL_SECONDS = 60.0
LAST_DELETION_FILE = "last-deletion"  # time of the last deletion that the cache was cleared for


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
        deleted_at = time_of_last_deletion(session)
    cleared_for = resources.settings.data_dir / LAST_DELETION_FILE
    if deleted_at is None or (cleared_for.exists() and cleared_for.read_text() == str(deleted_at)):
        return
    delete_derived_from_texts()
    cleared_for.write_text(str(deleted_at))
