"""A process that runs learns that a key has ended."""

import time
from collections.abc import Callable

import httpx2

from app.auth import service
from app.auth.api_key_cache import FRESH_SECONDS
from app.auth.service import NewKey
from app.database.engines import Database
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.clock import Clock
from tests.waiting import wait_until

MakeKey = Callable[..., NewKey]


def told(url: str, key: NewKey) -> str | None:
    """The code of the refusal; None: let in."""
    answer = httpx2.get(f"{url}/v1/jobs", headers={"Authorization": f"Bearer {key.text}"})
    assert answer.status_code in {200, 401}
    return None if answer.status_code == 200 else str(answer.json()["code"])


def test_an_expired_key_is_refused_at_its_end(locked: Settings, new_key: MakeKey) -> None:
    with serving(create_app(locked)) as url:
        end = time.monotonic() + 2
        key = new_key("jobs:read", days=2 / 86_400)
        assert told(url, key) is None
        wait_until(lambda: told(url, key) == "key_expired", seconds=10)
        assert end - 0.1 < time.monotonic() < end + FRESH_SECONDS / 2


def test_a_revoked_key_is_refused_within_a_minute(
    locked: Settings, new_key: MakeKey, database: Database
) -> None:
    app, clock, key = create_app(locked), Clock(), new_key("jobs:read")
    with serving(app) as url:
        app.state.key_ring._clock = clock
        assert told(url, key) is None
        with database.write() as session:
            service.revoke(session, key_id=key.key.id)
        clock.now += 60
        assert told(url, key) == "key_revoked"
