"""Keys checked a moment ago."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.auth import repository, secrets, service
from app.auth.api_key_cache import FRESH_SECONDS, STALE_SECONDS, ApiKeyCache
from app.auth.errors import KeyExpired, KeyMalformed, KeyRevoked, KeyUnknown, SessionEnded
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
def ring(database: Database, locked: Settings, clock: Clock) -> Iterator[ApiKeyCache]:
    made = ApiKeyCache(
        database,
        secrets.load_pepper(locked),
        session_seconds=SESSION_SECONDS,
        idle_seconds=IDLE_SECONDS,
        clock=clock,
    )
    yield made
    made.close()


NewKey = Callable[..., service.NewKey]


def look_up(ring: ApiKeyCache, token: Token) -> Caller:
    return asyncio.run(ring.caller(token))


def test_a_good_key_gives_its_caller_and_is_remembered(
    ring: ApiKeyCache, new_key: NewKey, database: Database
) -> None:
    made = new_key("predict", name="shop")
    token = secrets.parse(made.text)
    caller = look_up(ring, token)
    assert (caller.id, caller.name, caller.scopes) == (made.key.id, "shop", frozenset({"predict"}))
    with database.write() as session:
        service.revoke(session, key_id=made.key.id)
    assert look_up(ring, token) == caller  # not asked again so soon


def test_a_wrong_secret_with_a_known_id_is_refused(ring: ApiKeyCache, new_key: NewKey) -> None:
    made = new_key()
    token, forged = secrets.parse(made.text), secrets.new_token(made.key.id)
    look_up(ring, token)
    with pytest.raises(KeyUnknown):
        look_up(ring, forged)

    async def both() -> list[Caller | BaseException]:
        asked = (ring.caller(each) for each in (forged, token, forged, token))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(each) for each in asyncio.run(both())] == [KeyUnknown, Caller] * 2


def test_the_row_of_a_caller_without_a_key_lets_nobody_in(ring: ApiKeyCache) -> None:
    with pytest.raises(KeyUnknown):
        look_up(ring, secrets.new_token(LOCAL_KEY_ID))


def test_a_revoked_key_is_refused_within_a_minute(
    ring: ApiKeyCache, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key(name="gone")
    token = secrets.parse(made.text)
    look_up(ring, token)
    with database.write() as session:
        service.revoke(session, key_id=made.key.id)
    clock.now += FRESH_SECONDS
    assert FRESH_SECONDS <= 60
    with pytest.raises(KeyRevoked, match="gone"):
        look_up(ring, token)


def test_a_key_is_not_remembered_past_its_end(
    ring: ApiKeyCache, new_key: NewKey, database: Database, clock: Clock
) -> None:
    made = new_key(days=10 / 86_400)
    token = secrets.parse(made.text)
    look_up(ring, token)
    with database.write() as session:
        session.get_one(ApiKey, made.key.id).expires_at = 1.0
        session.commit()
    clock.now += 9
    look_up(ring, token)
    clock.now += 1
    with pytest.raises(KeyExpired):
        look_up(ring, token)


def test_an_expired_key_is_refused(ring: ApiKeyCache, new_key: NewKey) -> None:
    made = new_key(days=-1)
    with pytest.raises(KeyExpired):
        look_up(ring, secrets.parse(made.text))


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_with_the_database_down_a_good_key_is_trusted_for_ten_minutes(
    ring: ApiKeyCache, new_key: NewKey, database: Database, settings: Settings, clock: Clock
) -> None:
    token = secrets.parse(new_key().text)
    unseen = secrets.parse(new_key().text)
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
    ring: ApiKeyCache, new_key: NewKey, database: Database
) -> None:
    made = new_key()
    look_up(ring, secrets.parse(made.text))
    ring.close()  # waits for the writer
    with database.read() as session:
        row = session.get(ApiKey, made.key.id)
        assert row is not None
        assert row.last_used_at is not None


def sign_in(ring: ApiKeyCache, key: service.NewKey) -> Token:
    return asyncio.run(ring.sign_in(secrets.parse(key.text)))


def read(ring: ApiKeyCache, session: Token) -> Caller:
    return asyncio.run(ring.reader(session))


def test_a_session_reads_in_the_name_of_its_key_and_only_its_hmac_is_kept(
    ring: ApiKeyCache, new_key: NewKey, database: Database
) -> None:
    key = new_key("jobs:read", name="ada")
    session = sign_in(ring, key)
    caller = read(ring, secrets.parse_session(session.text))
    assert (caller.id, caller.scopes) == (key.key.id, frozenset({"jobs:read"}))
    with database.read() as rows:
        [row] = repository.sessions(rows)
        stored = " ".join(str(getattr(row, each.name)) for each in row.__table__.columns)
    assert session.text.split("_", 2)[2] not in stored
    assert session.text not in repr(session)
    assert key.text not in session.text


def test_a_session_is_no_key_and_a_key_no_session(ring: ApiKeyCache, new_key: NewKey) -> None:
    key = new_key()
    session = sign_in(ring, key)
    with pytest.raises(KeyMalformed):
        secrets.parse(session.text)
    with pytest.raises(KeyUnknown):
        look_up(ring, session)
    with pytest.raises(SessionEnded):
        secrets.parse_session(key.text)
    with pytest.raises(SessionEnded):
        read(ring, secrets.new_session_token(session.id))


def change(database: Database, session: Token, **fields: float) -> None:
    with database.write() as rows:
        for name, moment in fields.items():
            setattr(rows.get_one(BrowserSession, session.id), name, moment)
        rows.commit()


def test_a_session_ends_by_age_even_if_remembered(
    ring: ApiKeyCache, new_key: NewKey, database: Database, clock: Clock
) -> None:
    session = sign_in(ring, new_key())
    with database.read() as rows:
        begun = rows.get_one(BrowserSession, session.id)
        assert begun.expires_at - begun.created_at == pytest.approx(SESSION_SECONDS, abs=5)
    change(database, session, expires_at=begun.created_at + 20)
    read(ring, session)
    change(database, session, expires_at=1.0)
    clock.now += 1
    read(ring, session)
    clock.now += 20
    with pytest.raises(SessionEnded):
        read(ring, session)


def test_a_session_ends_that_was_not_used_and_its_row_goes_with_the_next_sign_in(
    ring: ApiKeyCache, new_key: NewKey, database: Database
) -> None:
    session = sign_in(ring, new_key())
    with database.read() as rows:
        begun = rows.get_one(BrowserSession, session.id).created_at
    change(database, session, last_used_at=begun - IDLE_SECONDS)
    with pytest.raises(SessionEnded):
        read(ring, session)
    fresh = sign_in(ring, new_key())
    with database.read() as rows:
        assert [row.id for row in repository.sessions(rows)] == [fresh.id]


def test_revoking_a_key_ends_its_sessions_within_a_minute(
    ring: ApiKeyCache, new_key: NewKey, database: Database, clock: Clock
) -> None:
    key, other = new_key(), new_key()
    session, stays = sign_in(ring, key), sign_in(ring, other)
    read(ring, session)
    with database.write() as rows:
        service.revoke(rows, key_id=key.key.id)
        assert [row.id for row in repository.sessions(rows)] == [stays.id]
    clock.now += FRESH_SECONDS
    with pytest.raises(SessionEnded):
        read(ring, session)
    assert read(ring, stays).id == other.key.id


def test_a_session_ends_with_its_key(
    ring: ApiKeyCache, new_key: NewKey, database: Database, clock: Clock
) -> None:
    key = new_key(days=10 / 86_400)
    session = sign_in(ring, key)
    read(ring, session)
    with database.write() as rows:
        rows.get_one(ApiKey, key.key.id).expires_at = 1.0
        rows.commit()
    clock.now += 10
    with pytest.raises(KeyExpired):
        read(ring, session)


def test_who_signs_out_is_refused_at_once(ring: ApiKeyCache, new_key: NewKey) -> None:
    key = new_key()
    session, other = sign_in(ring, key), sign_in(ring, key)
    forged = secrets.new_session_token(session.id)
    asyncio.run(ring.sign_out(forged))
    assert read(ring, session).id == key.key.id
    asyncio.run(ring.sign_out(session))
    asyncio.run(ring.sign_out(session))  # which is no error
    with pytest.raises(SessionEnded):
        read(ring, session)
    assert read(ring, other).id == key.key.id


def test_the_use_of_a_session_is_written_for_it_and_its_key(
    ring: ApiKeyCache, new_key: NewKey, database: Database
) -> None:
    key = new_key()
    session = sign_in(ring, key)
    with database.write() as rows:
        rows.get_one(BrowserSession, session.id).last_used_at -= 50
        rows.commit()
    read(ring, session)
    ring.close()
    with database.read() as rows:
        row = rows.get_one(BrowserSession, session.id)
        assert row.last_used_at - row.created_at > -1
        assert rows.get_one(ApiKey, key.key.id).last_used_at is not None
