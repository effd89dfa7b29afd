"""Keys checked a moment ago."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.db.engines import Database
from app.keys import secret, service
from app.keys.errors import KeyExpired, KeyRevoked, KeyUnknown
from app.keys.ring import FRESH_SECONDS, STALE_SECONDS, KeyRing
from app.keys.tables import ApiKey
from app.settings import Settings


class Clock:
    """A clock that moves when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(database: Database, locked: Settings, clock: Clock) -> Iterator[KeyRing]:
    made = KeyRing(database, secret.load_pepper(locked), clock=clock)
    yield made
    made.close()


NewKey = Callable[..., service.NewKey]


def test_a_good_key_gives_its_caller_and_is_remembered(ring: KeyRing, new_key: NewKey) -> None:
    made = new_key("predict", name="shop")
    token = secret.parse(made.text)
    assert ring.remembered(token) is None
    caller = ring.look_up(token)
    assert (caller.id, caller.name, caller.scopes) == (made.key.id, "shop", frozenset({"predict"}))
    assert ring.remembered(token) == caller


def test_a_wrong_secret_with_a_known_id_is_refused(ring: KeyRing, new_key: NewKey) -> None:
    made = new_key()
    ring.look_up(secret.parse(made.text))
    forged = secret.new_token(made.key.id)
    assert ring.remembered(forged) is None
    with pytest.raises(KeyUnknown):
        ring.look_up(forged)


def test_a_revoked_key_is_refused_within_a_minute(
    ring: KeyRing, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key(name="gone")
    token = secret.parse(made.text)
    ring.look_up(token)
    with database.write() as session:
        service.revoke(session, key_id=made.key.id)
    clock.now += FRESH_SECONDS
    assert FRESH_SECONDS <= 60
    assert ring.remembered(token) is None
    with pytest.raises(KeyRevoked, match="gone"):
        ring.look_up(token)


def test_a_key_is_not_remembered_past_its_end(ring: KeyRing, new_key: NewKey, clock: Clock) -> None:
    made = new_key(days=10 / 86_400)
    token = secret.parse(made.text)
    ring.look_up(token)
    clock.now += 10
    assert ring.remembered(token) is None


def test_an_expired_key_is_refused(ring: KeyRing, new_key: NewKey) -> None:
    made = new_key(days=-1)
    with pytest.raises(KeyExpired):
        ring.look_up(secret.parse(made.text))


def test_with_the_database_down_a_good_key_is_trusted_for_ten_minutes(
    ring: KeyRing, new_key: NewKey, database: Database, settings: Settings, clock: Clock
) -> None:
    token = secret.parse(new_key().text)
    unseen = secret.parse(new_key().text)
    caller = ring.look_up(token)
    ring.close()
    database.close()
    settings.sqlite_path.write_bytes(b"no database any more" * 100)
    clock.now += STALE_SECONDS - 1
    assert ring.look_up(token) == caller
    with pytest.raises(SQLAlchemyError):
        ring.look_up(unseen)
    clock.now += 2
    with pytest.raises(SQLAlchemyError):
        ring.look_up(token)


def test_the_last_use_is_written_in_the_background(
    ring: KeyRing, new_key: NewKey, database: Database
) -> None:
    made = new_key()
    ring.look_up(secret.parse(made.text))
    ring.close()  # waits for the writer
    with database.read() as session:
        row = session.get(ApiKey, made.key.id)
        assert row is not None
        assert row.last_used_at is not None
