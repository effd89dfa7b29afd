"""Installations of both kinds: embedded (one folder), and PostgreSQL, Valkey and Celery."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation, Outcome
from tests.once import once
from tests.servers import PostgresServer, ValkeyServer

KINDS = ("embedded", "cluster")
Install = Callable[..., Installation]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def install(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Install]:
    """Creates an installation of the kind, with the given settings."""
    made: list[Installation] = []

    def build(**changes: Any) -> Installation:
        urls: dict[str, Any] = {}
        if kind == "cluster":
            server: PostgresServer = request.getfixturevalue("postgres")
            broker: ValkeyServer = request.getfixturevalue("valkey")
            urls = {"database_url": server.new_database(), "broker_url": broker.url()}
        made.append(Installation(tmp_path / f"i{len(made)}", **urls, changes=changes))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def installation(install: Install) -> Installation:
    """With quick settings."""
    return install()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The result of the usual job without faults."""

    def make(folder: Path) -> str:
        whole = Installation(folder)
        try:
            job_id = whole.submit()
            whole.worker()
            whole.succeeded(job_id)
            return json.dumps(asdict(whole.outcome(job_id)))
        finally:
            whole.close()

    return Outcome(**json.loads(once(tmp_path_factory, "uninterrupted", make)))
