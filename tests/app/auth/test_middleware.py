"""Authentication, and the responses to rejected requests."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.auth import secrets, service
from app.database.engines import Database
from app.main import create_app
from app.settings import Settings

NewKey = Callable[..., service.CreatedKey]
ROUTE = "/docs/start.js"  # for any key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_auth_off_needs_no_key(client: TestClient) -> None:
    assert client.get(ROUTE).status_code == 200


def test_requests_fail_without_the_api_key_cache(auth_settings: Settings, new_key: NewKey) -> None:
    unstarted = TestClient(create_app(auth_settings))
    response = unstarted.get(ROUTE, headers=bearer(new_key().text))
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"


def test_valid_key_is_accepted_with_auth_on(anonymous_client: TestClient, new_key: NewKey) -> None:
    key = new_key().text
    assert anonymous_client.get(ROUTE, headers=bearer(key)).status_code == 200
    assert (
        anonymous_client.get(ROUTE, headers={"Authorization": f"bearer  {key} "}).status_code == 200
    )


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
def test_rejections_have_a_code(
    anonymous_client: TestClient, header: str | None, code: str
) -> None:
    response = anonymous_client.get(ROUTE, headers={"Authorization": header} if header else {})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == code
    assert (
        header is None or header.split()[-1] == "Bearer" or header.split()[-1] not in response.text
    )


def test_predict_routes_are_rejected_in_their_own_format(anonymous_client: TestClient) -> None:
    response = anonymous_client.post(
        "/predict", json={"inputs": "x"}, headers=bearer("hf_AbCdEfGhIj")
    )
    assert response.status_code == 401
    assert response.json()["error_type"] == "Unauthorized"
    assert "Hugging Face" in response.json()["error"]


def test_revoked_and_expired_keys_are_rejected(
    anonymous_client: TestClient, new_key: NewKey, database: Database
) -> None:
    revoked, expired = new_key(name="old"), new_key(days=-1)
    with database.write() as session:
        service.revoke_key_and_sessions(session, key_id=revoked.key.id)
    for made, code in ((revoked, "key_revoked"), (expired, "key_expired")):
        response = anonymous_client.get(ROUTE, headers=bearer(made.text))
        assert (response.status_code, response.json()["code"]) == (401, code)


def test_two_authorization_headers_are_rejected(
    anonymous_client: TestClient, new_key: NewKey
) -> None:
    key = new_key().text
    headers = [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer other")]
    assert anonymous_client.get(ROUTE, headers=headers).status_code == 401


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_key_is_in_no_file_and_no_log_line(
    anonymous_client: TestClient,
    new_key: NewKey,
    auth_settings: Settings,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = new_key()
    hidden = made.text.split("_", 2)[2]
    anonymous_client.get(ROUTE, headers=bearer(made.text))
    anonymous_client.get(f"/v1/{made.text}", headers=bearer(made.text))
    anonymous_client.get(ROUTE, headers=bearer(made.text + "x"))
    printed = "".join(capfd.readouterr())
    assert "/v1/lw_" in printed
    assert hidden not in printed
    files = [path for path in auth_settings.data_dir.rglob("*") if path.is_file()]
    assert auth_settings.default_sqlite_path in files
    assert all(hidden.encode() not in path.read_bytes() for path in files)
    assert secrets.parse_api_key(made.text).digest(
        secrets.load_or_create_pepper(auth_settings)
    ).encode() in b"".join(path.read_bytes() for path in files)
