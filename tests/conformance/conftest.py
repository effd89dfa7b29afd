"""The databases on which the ownership of jobs is tested: every test runs on each."""

import pytest

from tests.app.conftest import database, migrated, resources, settings

__all__ = ["database", "migrated", "resources", "settings"]


@pytest.fixture(params=["sqlite", "sqlite-truncate", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
