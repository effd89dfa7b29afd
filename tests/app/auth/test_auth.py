"""Who is let in, and what those at the door are told."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.auth import secrets, service
from app.database.engines import Database
from app.main import create_app
from app.settings import Settings

NewKey = Callable[..., service.NewKey]
ROUTE = "/openapi.json"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_with_keys_off_a_caller_needs_nothing(client: TestClient) -> None:
    assert client.get(ROUTE).status_code == 200


def test_without_its_ring_the_door_stays_closed(locked: Settings, new_key: NewKey) -> None:
    unstarted = TestClient(create_app(locked))
    answer = unstarted.get(ROUTE, headers=bearer(new_key().text))
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"


def test_with_keys_on_a_good_key_is_let_in(locked_client: TestClient, new_key: NewKey) -> None:
    key = new_key().text
    assert locked_client.get(ROUTE, headers=bearer(key)).status_code == 200
    assert locked_client.get(ROUTE, headers={"Authorization": f"bearer  {key} "}).status_code == 200


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "key_missing"),
        ("Basic dXNlcjpwYXNz", "key_malformed"),
        ("Bearer", "key_malformed"),
        ("Bearer nonsense", "key_malformed"),
        ("Bearer hf_AbCdEfGhIjKlMnOp", "foreign_token"),
        (f"Bearer lw_{'0' * 32}_{'a' * 43}", "key_unknown"),
        (f"Bearer lw_{'1' * 32}_{'a' * 43}", "key_unknown"),
    ],
)
def test_a_refusal_names_its_cause(
    locked_client: TestClient, header: str | None, code: str
) -> None:
    answer = locked_client.get(ROUTE, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["code"] == code
    assert header is None or header.split()[-1] == "Bearer" or header.split()[-1] not in answer.text


def test_the_predict_dialect_is_refused_in_its_own_words(locked_client: TestClient) -> None:
    answer = locked_client.post("/predict", json={"inputs": "x"}, headers=bearer("hf_AbCdEfGhIj"))
    assert answer.status_code == 401
    assert answer.json()["error_type"] == "Unauthorized"
    assert "Hugging Face" in answer.json()["error"]


def test_revoked_and_expired_keys_are_refused(
    locked_client: TestClient, new_key: NewKey, database: Database
) -> None:
    revoked, expired = new_key(name="old"), new_key(days=-1)
    with database.write() as session:
        service.revoke(session, key_id=revoked.key.id)
    for made, code in ((revoked, "key_revoked"), (expired, "key_expired")):
        answer = locked_client.get(ROUTE, headers=bearer(made.text))
        assert (answer.status_code, answer.json()["code"]) == (401, code)


def test_two_authorization_headers_are_refused(locked_client: TestClient, new_key: NewKey) -> None:
    key = new_key().text
    headers = [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer other")]
    assert locked_client.get(ROUTE, headers=headers).status_code == 401


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_key_is_found_in_no_file_and_no_log_line(
    locked_client: TestClient,
    new_key: NewKey,
    locked: Settings,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = new_key()
    hidden = made.text.split("_", 2)[2]
    locked_client.get(ROUTE, headers=bearer(made.text))
    locked_client.get(f"/v1/{made.text}", headers=bearer(made.text))
    locked_client.get(ROUTE, headers=bearer(made.text + "x"))
    printed = "".join(capfd.readouterr())
    assert "/v1/lw_" in printed
    assert hidden not in printed
    files = [path for path in locked.data_dir.rglob("*") if path.is_file()]
    assert locked.sqlite_path in files
    assert all(hidden.encode() not in path.read_bytes() for path in files)
    assert secrets.parse(made.text).digest(secrets.load_pepper(locked)).encode() in b"".join(
        path.read_bytes() for path in files
    )
