"""Fixtures: services that keep traffic."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.serving.conftest import Publish, publish

__all__ = ["Publish", "publish"]

Serving = Callable[..., TestClient]


@pytest.fixture
def serving(settings: Settings) -> Iterator[Serving]:
    """Starts a service with other settings: `serving(keep_traffic="texts")`."""
    with ExitStack() as stack:

        def serve(**changes: Any) -> TestClient:
            changed = Settings.model_validate(settings.model_dump() | changes)
            return stack.enter_context(TestClient(create_app(changed)))

        yield serve


@pytest.fixture
def keeping(serving: Serving) -> TestClient:
    """A client of a service that keeps texts."""
    return serving(keep_traffic="texts")
