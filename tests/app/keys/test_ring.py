"""Keys checked a moment ago."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.db.engines import Database
from app.deps import Caller
from app.keys import secret, service
from app.keys.errors import KeyExpired, KeyRevoked, KeyUnknown
from app.keys.ring import FRESH_SECONDS, STALE_SECONDS, KeyRing
from app.keys.secret import Token
from app.keys.tables import LOCAL_KEY_ID, ApiKey
from app.settings import Settings
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(database: Database, locked: Settings, clock: Clock) -> Iterator[KeyRing]:
    made = KeyRing(database, secret.load_pepper(locked), clock=clock)
    yield made
    made.close()


NewKey = Callable[..., service.NewKey]


def look_up(ring: KeyRing, token: Token) -> Caller:
    return asyncio.run(ring.caller(token))


def test_a_good_key_gives_its_caller_and_is_remembered(
    ring: KeyRing, new_key: NewKey, database: Database
) -> None:
    made = new_key("predict", name="shop")
    token = secret.parse(made.text)
    caller = look_up(ring, token)
    assert (caller.id, caller.name, caller.scopes) == (made.key.id, "shop", frozenset({"predict"}))
    with database.write() as session:
        service.revoke(session, key_id=made.key.id)
    assert look_up(ring, token) == caller  # not asked again so soon


def test_a_wrong_secret_with_a_known_id_is_refused(ring: KeyRing, new_key: NewKey) -> None:
    made = new_key()
    token, forged = secret.parse(made.text), secret.new_token(made.key.id)
    look_up(ring, token)
    with pytest.raises(KeyUnknown):
        look_up(ring, forged)

    async def both() -> list[Caller | BaseException]:
        asked = (ring.caller(each) for each in (forged, token, forged, token))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(each) for each in asyncio.run(both())] == [KeyUnknown, Caller] * 2


def test_the_row_of_a_caller_without_a_key_lets_nobody_in(ring: KeyRing) -> None:
    with pytest.raises(KeyUnknown):
        look_up(ring, secret.new_token(LOCAL_KEY_ID))


def test_a_revoked_key_is_refused_within_a_minute(
    ring: KeyRing, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key(name="gone")
    token = secret.parse(made.text)
    look_up(ring, token)
    with database.write() as session:
        service.revoke(session, key_id=made.key.id)
    clock.now += FRESH_SECONDS
    assert FRESH_SECONDS <= 60
    with pytest.raises(KeyRevoked, match="gone"):
        look_up(ring, token)


def test_a_key_is_not_remembered_past_its_end(
    ring: KeyRing, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key(days=10 / 86_400)
    token = secret.parse(made.text)
    look_up(ring, token)
    with database.write() as session:
        session.get_one(ApiKey, made.key.id).expires_at = 1.0
        session.commit()
    clock.now += 9
    look_up(ring, token)
    clock.now += 1
    with pytest.raises(KeyExpired):
        look_up(ring, token)


def test_an_expired_key_is_refused(ring: KeyRing, new_key: NewKey) -> None:
    made = new_key(days=-1)
    with pytest.raises(KeyExpired):
        look_up(ring, secret.parse(made.text))


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_with_the_database_down_a_good_key_is_trusted_for_ten_minutes(
    ring: KeyRing, new_key: NewKey, database: Database, settings: Settings, clock: Clock
) -> None:
    token = secret.parse(new_key().text)
    unseen = secret.parse(new_key().text)
    caller = look_up(ring, token)
    ring.close()
    database.close()
    settings.sqlite_path.write_bytes(b"no database any more" * 100)
    clock.now += STALE_SECONDS - 1
    assert look_up(ring, token) == caller
    with pytest.raises(SQLAlchemyError):
        look_up(ring, unseen)
    clock.now += 2
    with pytest.raises(SQLAlchemyError):
        look_up(ring, token)


def test_the_last_use_is_written_in_the_background(
    ring: KeyRing, new_key: NewKey, database: Database
) -> None:
    made = new_key()
    look_up(ring, secret.parse(made.text))
    ring.close()  # waits for the writer
    with database.read() as session:
        row = session.get(ApiKey, made.key.id)
        assert row is not None
        assert row.last_used_at is not None
