"""A database, and a receiver that may be sent to."""

from collections.abc import Iterator

import pytest

from app.settings import Settings
from tests.app.conftest import settings as default_settings
from tests.slow import MOSTLY_SQLITE
from tests.webhook_receiver import ALLOWED, Receiver, receiving

__all__ = ["default_settings"]


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def settings(default_settings: Settings) -> Settings:
    """Settings that allow receivers on this machine."""
    return default_settings.model_copy(update={"webhook_allowed_hosts": ALLOWED})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running
