"""A migrated database with short heartbeats, and everything that a worker needs."""

from collections.abc import Iterator

import pytest

from app.database.engines import Database
from app.resources import Resources, open_resources
from app.settings import Settings
from tests.app.conftest import database_kind, migrated
from tests.app.conftest import settings as default_settings
from worker import fork_server_supervisor, spawn

__all__ = ["database_kind", "default_settings", "migrated"]


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the commands after tests that replace them with a script."""
    monkeypatch.setattr(spawn, "LORA_CORE_COMMAND", spawn.LORA_CORE_COMMAND)
    monkeypatch.setattr(
        fork_server_supervisor, "FORK_SERVER_COMMAND", fork_server_supervisor.FORK_SERVER_COMMAND
    )


@pytest.fixture
def settings(default_settings: Settings) -> Settings:
    """The default settings with short intervals."""
    quick = {
        "poll_seconds": 0.05,
        "heartbeat_seconds": 0.2,
        "lease_seconds": 30,
        "reconcile_seconds": 0.1,
        "stop_grace_seconds": 10,
        "retry_seconds": 0,
        "min_free_bytes": 0,
    }
    return default_settings.model_copy(update=quick)


@pytest.fixture
def resources(settings: Settings) -> Iterator[Resources]:
    opened = open_resources(settings)
    yield opened
    opened.close()


@pytest.fixture
def database(resources: Resources) -> Database:
    return resources.database
