"""Fixtures: a pool of sixty texts, and a project on it."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.datasets.tables import Dataset
from app.resources import Resources
from tests.labeling_rows import create_project, make_pool


@pytest.fixture(autouse=True)
def _wait_for_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests that show the accuracy wait for it on a slow machine, too."""
    monkeypatch.setattr("app.labeling.pools.WAIT_FOR_FIT_SECONDS", 60)


@pytest.fixture
def pool(resources: Resources, tmp_path: Path) -> Dataset:
    return make_pool(resources, tmp_path)


@pytest.fixture
def project(client: TestClient, pool: Dataset) -> dict[str, Any]:
    return create_project(client)
