"""The databases on which the ownership of jobs is tested: every test runs on each.

The two kinds of journal of SQLite differ in who waits for whom, so what only one process does is
tested with the other kind at length.
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
