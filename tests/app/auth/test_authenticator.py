"""The cache of API keys and sessions."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.auth import authenticator, secrets, service
from app.auth.authenticator import STALE_IF_ERROR_SECONDS, TTL_SECONDS, Authenticator
from app.auth.errors import KeyExpired, KeyMalformed, KeyNotRecognized, KeyRevoked, SessionInvalid
from app.auth.secrets import Token
from app.auth.tables import LOCAL_KEY_ID, ApiKey, BrowserSession
from app.database.engines import Database
from app.http.dependencies import Caller
from app.settings import Settings
from tests.clock import Clock

SESSION_SECONDS = 1000
IDLE_SECONDS = 100


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(database: Database, auth_settings: Settings, clock: Clock) -> Iterator[Authenticator]:
    made = Authenticator(
        database,
        secrets.load_or_create_pepper(auth_settings),
        session_seconds=SESSION_SECONDS,
        idle_seconds=IDLE_SECONDS,
        clock=clock,
    )
    yield made
    made.close()


NewKey = Callable[..., service.CreatedKey]


def look_up(cache: Authenticator, token: Token) -> Caller:
    return asyncio.run(cache.authenticate_key(token))


def test_valid_key_returns_its_caller_and_is_cached(
    cache: Authenticator, new_key: NewKey, database: Database
) -> None:
    made = new_key("predict", name="shop")
    token = secrets.parse_api_key(made.text)
    caller = look_up(cache, token)
    assert (caller.id, caller.name, caller.scopes) == (made.key.id, "shop", frozenset({"predict"}))
    with database.write() as session:
        service.revoke_key_and_sessions(session, key_id=made.key.id)
    assert look_up(cache, token) == caller  # from the cache


def test_wrong_secret_with_a_known_id_is_rejected(cache: Authenticator, new_key: NewKey) -> None:
    made = new_key()
    token, forged = secrets.parse_api_key(made.text), secrets.new_key_token(made.key.id)
    look_up(cache, token)
    with pytest.raises(KeyNotRecognized):
        look_up(cache, forged)

    async def both() -> list[Caller | BaseException]:
        results = (cache.authenticate_key(each) for each in (forged, token, forged, token))
        return await asyncio.gather(*results, return_exceptions=True)

    assert [type(each) for each in asyncio.run(both())] == [KeyNotRecognized, Caller] * 2


def test_local_key_authenticates_nobody(cache: Authenticator) -> None:
    with pytest.raises(KeyNotRecognized):
        look_up(cache, secrets.new_key_token(LOCAL_KEY_ID))


def test_revoked_key_is_rejected_within_a_minute(
    cache: Authenticator, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key(name="gone")
    token = secrets.parse_api_key(made.text)
    look_up(cache, token)
    with database.write() as session:
        service.revoke_key_and_sessions(session, key_id=made.key.id)
    clock.now += 30
    with pytest.raises(KeyRevoked, match="gone"):
        look_up(cache, token)


def test_key_is_not_cached_after_it_expires(
    cache: Authenticator, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key(days=10 / 86_400)
    token = secrets.parse_api_key(made.text)
    look_up(cache, token)
    with database.write() as session:
        session.get_one(ApiKey, made.key.id).expires_at = 1.0
    clock.now += 9
    look_up(cache, token)
    clock.now += 1
    with pytest.raises(KeyExpired):
        look_up(cache, token)


def test_expired_key_is_rejected(cache: Authenticator, new_key: NewKey) -> None:
    made = new_key(days=-1)
    with pytest.raises(KeyExpired):
        look_up(cache, secrets.parse_api_key(made.text))


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_cached_key_is_valid_for_ten_minutes_during_an_outage(
    cache: Authenticator, new_key: NewKey, database: Database, settings: Settings, clock: Clock
) -> None:
    token = secrets.parse_api_key(new_key().text)
    unseen = secrets.parse_api_key(new_key().text)
    caller = look_up(cache, token)
    cache.close()
    database.close()
    settings.default_sqlite_path.write_bytes(b"no database any more" * 100)
    clock.now += STALE_IF_ERROR_SECONDS - 1
    assert look_up(cache, token) == caller
    with pytest.raises(SQLAlchemyError):
        look_up(cache, unseen)
    clock.now += 2
    with pytest.raises(SQLAlchemyError):
        look_up(cache, token)


def test_last_use_is_recorded_in_the_background(
    cache: Authenticator, new_key: NewKey, database: Database
) -> None:
    made = new_key()
    look_up(cache, secrets.parse_api_key(made.text))
    cache.close()  # waits for the writer
    with database.read() as session:
        row = session.get(ApiKey, made.key.id)
        assert row is not None
        assert row.last_used_at is not None


def test_last_use_is_recorded_every_five_minutes(
    cache: Authenticator, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key()
    token = secrets.parse_api_key(made.text)

    def use_after(seconds: float) -> bool:
        """Whether a use this many seconds later is recorded."""
        with database.write() as session:
            session.get_one(ApiKey, made.key.id).last_used_at = None
        clock.now += seconds
        look_up(cache, token)
        cache._writer.submit(int).result()  # it writes one after the other
        with database.read() as session:
            return session.get_one(ApiKey, made.key.id).last_used_at is not None

    seconds = (0, 100, 200, 299, 31)
    assert [use_after(each) for each in seconds] == [True, False, True, False, True]


def test_uses_of_as_many_keys_are_remembered_as_there_may_be_entries(
    cache: Authenticator, new_key: NewKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "MAX_ENTRIES", 2)
    tokens = [secrets.parse_api_key(new_key().text) for _ in range(3)]

    def use(number: int) -> set[int]:
        """Return whose uses are remembered after this one."""
        clock.now += TTL_SECONDS + 1
        look_up(cache, tokens[number])
        return {n for n, token in enumerate(tokens) if token.id in cache._use_recorded_at}

    assert [use(number) for number in (0, 1, 1, 2)] == [{0}, {0, 1}, {0, 1}, {2}]


def sign_in(cache: Authenticator, key: service.CreatedKey) -> Token:
    return asyncio.run(cache.sign_in(secrets.parse_api_key(key.text)))


def read(cache: Authenticator, session: Token) -> Caller:
    return asyncio.run(cache.authenticate_session(session))


def test_session_has_the_caller_of_its_key_and_is_stored_as_an_hmac(
    cache: Authenticator, new_key: NewKey, database: Database
) -> None:
    key = new_key("jobs:read", name="ada")
    session = sign_in(cache, key)
    caller = read(cache, secrets.parse_session_token(session.text))
    assert (caller.id, caller.scopes) == (key.key.id, frozenset({"jobs:read"}))
    with database.read() as rows:
        [row] = rows.scalars(select(BrowserSession))
        stored = " ".join(str(getattr(row, each.name)) for each in row.__table__.columns)
    assert session.text.split("_", 2)[2] not in stored
    assert session.text not in repr(session)
    assert key.text not in session.text


def test_session_and_key_are_not_interchangeable(cache: Authenticator, new_key: NewKey) -> None:
    key = new_key()
    session = sign_in(cache, key)
    with pytest.raises(KeyMalformed):
        secrets.parse_api_key(session.text)
    with pytest.raises(KeyNotRecognized):
        look_up(cache, session)
    with pytest.raises(SessionInvalid):
        secrets.parse_session_token(key.text)
    with pytest.raises(SessionInvalid):
        read(cache, secrets.new_session_token(session.id))


def change(database: Database, session: Token, **fields: float) -> None:
    with database.write() as rows:
        for name, moment in fields.items():
            setattr(rows.get_one(BrowserSession, session.id), name, moment)


def test_session_expires_even_if_cached(
    cache: Authenticator, new_key: NewKey, database: Database, clock: Clock
) -> None:
    session = sign_in(cache, new_key())
    with database.read() as rows:
        begun = rows.get_one(BrowserSession, session.id)
        assert begun.expires_at - begun.created_at == pytest.approx(SESSION_SECONDS, abs=5)
    change(database, session, expires_at=begun.created_at + 20)
    read(cache, session)
    change(database, session, expires_at=1.0)
    clock.now += 1
    read(cache, session)
    clock.now += 20
    with pytest.raises(SessionInvalid):
        read(cache, session)


def test_idle_session_expires_and_is_deleted_at_the_next_sign_in(
    cache: Authenticator, new_key: NewKey, database: Database
) -> None:
    session = sign_in(cache, new_key())
    with database.read() as rows:
        begun = rows.get_one(BrowserSession, session.id).created_at
    change(database, session, last_used_at=begun - IDLE_SECONDS)
    with pytest.raises(SessionInvalid):
        read(cache, session)
    fresh = sign_in(cache, new_key())
    with database.read() as rows:
        assert rows.scalars(select(BrowserSession.id)).all() == [fresh.id]


def test_revoking_a_key_ends_its_sessions_within_a_minute(
    cache: Authenticator, new_key: NewKey, database: Database, clock: Clock
) -> None:
    key, other = new_key(), new_key()
    session, stays = sign_in(cache, key), sign_in(cache, other)
    read(cache, session)
    with database.write() as rows:
        service.revoke_key_and_sessions(rows, key_id=key.key.id)
        assert rows.scalars(select(BrowserSession.id)).all() == [stays.id]
    clock.now += TTL_SECONDS
    with pytest.raises(SessionInvalid):
        read(cache, session)
    assert read(cache, stays).id == other.key.id


def test_session_ends_with_its_key(
    cache: Authenticator, new_key: NewKey, database: Database, clock: Clock
) -> None:
    key = new_key(days=10 / 86_400)
    session = sign_in(cache, key)
    read(cache, session)
    with database.write() as rows:
        rows.get_one(ApiKey, key.key.id).expires_at = 1.0
    clock.now += 10
    with pytest.raises(KeyExpired):
        read(cache, session)


def test_session_is_rejected_right_after_sign_out(cache: Authenticator, new_key: NewKey) -> None:
    key = new_key()
    session, other = sign_in(cache, key), sign_in(cache, key)
    forged = secrets.new_session_token(session.id)
    asyncio.run(cache.sign_out(forged))
    assert read(cache, session).id == key.key.id
    asyncio.run(cache.sign_out(session))
    asyncio.run(cache.sign_out(session))  # signing out again is no error
    with pytest.raises(SessionInvalid):
        read(cache, session)
    assert read(cache, other).id == key.key.id


def test_session_use_is_recorded_for_session_and_key(
    cache: Authenticator, new_key: NewKey, database: Database
) -> None:
    key = new_key()
    session = sign_in(cache, key)
    with database.write() as rows:
        rows.get_one(BrowserSession, session.id).last_used_at -= 50
        rows.get_one(ApiKey, key.key.id).last_used_at = None
    read(cache, session)
    cache.close()
    with database.read() as rows:
        row = rows.get_one(BrowserSession, session.id)
        assert row.last_used_at - row.created_at > -1
        assert rows.get_one(ApiKey, key.key.id).last_used_at is not None
