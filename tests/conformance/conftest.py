"""The databases on which leases are tested: every test runs on each of them.

SQLite's two journal modes differ in which side waits, so what a single process does is
tested with the other mode only in the slow tests.
"""

import pytest

from tests.app.conftest import database, migrated, resources, settings

KINDS = ("sqlite", "sqlite-truncate", "postgresql")

__all__ = ["database", "migrated", "resources", "settings"]


@pytest.fixture(
    params=["sqlite", pytest.param("sqlite-truncate", marks=pytest.mark.slow), "postgresql"]
)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
