"""The databases on which the ownership of jobs is tested."""

from tests.app.conftest import database, migrated, resources, settings

__all__ = ["database", "migrated", "resources", "settings"]
