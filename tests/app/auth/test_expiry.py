"""A running process notices that an API key has ended."""

import time
from collections.abc import Callable

import httpx2

from app.auth import service
from app.auth.authenticator import TTL_SECONDS
from app.auth.service import CreatedKey
from app.database.engines import Database
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.clock import Clock
from tests.waiting import wait_until

MakeKey = Callable[..., CreatedKey]


def error_code(url: str, key: CreatedKey) -> str | None:
    """Return the error code, or None if the request was accepted."""
    response = httpx2.get(
        f"{url}/v1/jobs", headers={"Authorization": f"Bearer {key.text}"}, timeout=30
    )
    assert response.status_code in {200, 401}
    return None if response.status_code == 200 else str(response.json()["code"])


def test_key_is_rejected_once_it_expires(auth_settings: Settings, new_key: MakeKey) -> None:
    with serving(create_app(auth_settings)) as url:
        end = time.monotonic() + 2
        key = new_key("jobs:read", days=2 / 86_400)
        assert error_code(url, key) is None
        wait_until(lambda: error_code(url, key) == "key_expired", seconds=10)
        assert end - 0.1 < time.monotonic() < end + TTL_SECONDS / 2


def test_revoked_key_is_rejected_within_a_minute(
    auth_settings: Settings, new_key: MakeKey, database: Database
) -> None:
    app, clock, key = create_app(auth_settings), Clock(), new_key("jobs:read")
    with serving(app) as url:
        app.state.authenticator._clock = clock
        assert error_code(url, key) is None
        with database.write() as session:
            service.revoke_key_and_sessions(session, key_id=key.key.id)
        clock.now += 60
        assert error_code(url, key) == "key_revoked"
