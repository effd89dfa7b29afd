"""Creating, listing and revoking API keys."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy.orm import make_transient

from app.auth import repository, service
from app.auth.errors import KeyNameInvalid, KeyNotFound, LocalKeyNotRevocable, UnknownScope
from app.auth.tables import ALL_SCOPES, LOCAL_KEY_ID, ApiKey
from app.database.engines import Database

PEPPER = b"p" * 64


def create(database: Database, name: str = "ci", **settings: object) -> service.CreatedKey:
    with database.write() as session:
        return service.create_key(session, pepper=PEPPER, name=name, **settings)  # type: ignore[arg-type]


def test_key_is_stored_as_an_hmac(database: Database) -> None:
    made = create(database, scopes=["predict", "predict"], days=2)
    with database.read() as session:
        row = session.get(ApiKey, made.key.id)
        assert row is not None
        assert row.scopes == ["predict"]
        assert row.secret_hmac is not None
        assert row.expires_at is not None
        assert row.expires_at - row.created_at == pytest.approx(2 * 86_400, abs=5)
        stored = " ".join(str(getattr(row, column.name)) for column in ApiKey.__table__.columns)
    assert made.text.split("_", 2)[2] not in stored
    assert made.text not in repr(made)


def test_unknown_scope_creates_no_key(database: Database) -> None:
    with pytest.raises(UnknownScope, match="jobs:read"):
        create(database, scopes=["jobs:everything"])
    with database.read() as session:
        assert list(repository.list_keys(session)) == []


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 65])
def test_an_invalid_name_creates_no_key(database: Database, name: str) -> None:
    with pytest.raises(KeyNameInvalid, match="64"):
        create(database, name)


def test_a_name_may_have_64_characters(database: Database) -> None:
    assert create(database, "x" * 64).key.name == "x" * 64


def test_keys_are_listed_oldest_first_without_local(database: Database) -> None:
    made = [create(database, name) for name in ("one", "two", "three")]
    with database.write() as session:  # stored last, as PostgreSQL does with a row that changes
        oldest = session.get_one(ApiKey, made[0].key.id)
        session.delete(oldest)
        session.flush()
        make_transient(oldest)
        session.add(oldest)
    with database.read() as session:
        listed = repository.list_keys(session)
    assert [key.id for key in listed] == [each.key.id for each in made]
    assert LOCAL_KEY_ID not in {key.id for key in listed}


def test_revoking_again_keeps_the_first_time(database: Database) -> None:
    made = create(database)
    with database.write() as session:
        first = service.revoke_key_and_sessions(session, key_id=made.key.id).revoked_at
    with database.write() as session:
        again = service.revoke_key_and_sessions(session, key_id=made.key.id).revoked_at
    assert first is not None
    assert again == first


def test_unknown_and_local_keys_cannot_be_revoked(database: Database) -> None:
    with database.write() as session, pytest.raises(KeyNotFound):
        service.revoke_key_and_sessions(session, key_id=uuid4())
    with database.write() as session, pytest.raises(LocalKeyNotRevocable):
        service.revoke_key_and_sessions(session, key_id=LOCAL_KEY_ID)


def test_only_the_first_start_creates_an_admin_key(database: Database) -> None:
    def start(_: int) -> service.CreatedKey | None:
        with database.write() as session:
            return service.create_first_key(session, pepper=PEPPER)

    with ThreadPoolExecutor(4) as pool:
        made = [each for each in pool.map(start, range(8)) if each is not None]
    assert len(made) == 1
    assert set(made[0].key.scopes) == set(ALL_SCOPES)


def test_a_start_creates_a_key_only_if_none_is_usable(database: Database) -> None:
    create(database, "expired", days=-1)
    revoked = create(database, "revoked")
    with database.write() as session:
        service.revoke_key_and_sessions(session, key_id=revoked.key.id)
    with database.write() as session:
        first = service.create_first_key(session, pepper=PEPPER)
    assert first is not None
    create(database, "lesser", scopes=["jobs:read"])
    with database.write() as session:
        service.revoke_key_and_sessions(session, key_id=first.key.id)
    with database.write() as session:
        assert service.create_first_key(session, pepper=PEPPER) is None
