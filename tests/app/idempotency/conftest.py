"""The tests of `Idempotency-Key` run on both databases."""

import pytest

from tests.app.registry.conftest import finished

__all__ = ["finished"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
