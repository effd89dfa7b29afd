"""Some tests of `Idempotency-Key` run on both databases."""

import pytest

from tests.app.registry.conftest import finished
from tests.slow import MOSTLY_SQLITE

__all__ = ["finished"]


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind
