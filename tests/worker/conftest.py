"""A migrated database with short heartbeats, and everything that a worker needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.database.engines import Database
from app.resources import Resources, open_resources
from app.settings import Settings
from tests.app.conftest import database_kind, migrated
from tests.app.conftest import settings as default_settings
from worker import child_confinement, fork_server_supervisor, spawn

__all__ = ["database_kind", "default_settings", "migrated"]


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the commands and what they may reach after tests that replace them with a script."""
    monkeypatch.setattr(spawn, "LORA_CORE_COMMAND", spawn.LORA_CORE_COMMAND)
    monkeypatch.setattr(
        fork_server_supervisor, "FORK_SERVER_COMMAND", fork_server_supervisor.FORK_SERVER_COMMAND
    )
    for name in ("READABLE", "WRITABLE"):
        monkeypatch.setattr(child_confinement, name, getattr(child_confinement, name))


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


@pytest.fixture
def failpoint_file(session_cache: Path, tmp_path: Path) -> Path:
    """An empty file that a failpoint of a training may delete: it is in the cache."""
    path = session_cache / tmp_path.name
    path.touch()
    return path
