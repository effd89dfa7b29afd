"""The databases on which leases are tested: every test runs on each of them.

SQLite's two journal modes differ in which side waits, so what a single process does is
tested with the other mode only in the slow tests.
"""

import pytest

from tests.app.conftest import database, migrated, resources, settings
from tests.slow import slow_but

KINDS = ("sqlite", "sqlite-truncate", "postgresql")
# For what is computed in Python, without a condition in SQL.
on_sqlite_first = pytest.mark.parametrize("database_kind", slow_but(KINDS, "sqlite"))

__all__ = ["database", "migrated", "resources", "settings"]


@pytest.fixture(params=slow_but(KINDS, "sqlite", "postgresql"))
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
