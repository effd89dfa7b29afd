"""Browser sign-in: the session cookie is read-only, writes need the CSRF token."""

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.auth import service
from app.auth.authenticator import Authenticator
from app.auth.middleware import CSRF_TOKEN_HEADER, SECURE_SESSION_COOKIE, SESSION_COOKIE
from app.database.errors import DatabaseUnavailable
from app.main import create_app
from app.settings import Settings
from tests.app.predictions.conftest import model, texts
from tests.app.web.html_elements import elements

__all__ = ["model", "texts"]

NewKey = Callable[..., service.CreatedKey]
PAGE = {"Accept": "text/html"}
JOB = {"method": {"type": "baseline"}}


def sign_in(client: TestClient, key: str) -> str:
    """Sign in; return the CSRF token."""
    answer = client.post("/sign-in", data={"key": key})
    found = re.search(r'data-token="([0-9a-f]{64})"', answer.text)
    assert found
    return found[1]


def test_unauthenticated_visitors_are_redirected_to_sign_in(anonymous_client: TestClient) -> None:
    answer = anonymous_client.get("/jobs/new?data=reviews", headers=PAGE, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=/jobs/new%3Fdata%3Dreviews"
    form = anonymous_client.get(answer.headers["location"])
    assert 'name="next" value="/jobs/new?data=reviews"' in form.text


def test_sign_in_allows_reading(anonymous_client: TestClient, new_key: NewKey) -> None:
    answer = anonymous_client.post(
        "/sign-in",
        data={"key": f" {new_key().text}\n", "next": "/jobs/new?data=a&x=1"},
    )
    assert answer.status_code == 200
    assert 'id="continue" href="/jobs/new?data=a&amp;x=1"' in answer.text
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert anonymous_client.get("/").status_code == 200
    assert anonymous_client.get("/v1/jobs").status_code == 200


def test_cookie_is_secure_under_tls(anonymous_client: TestClient, new_key: NewKey) -> None:
    for scheme, name in (("http", "loraworks_session="), ("https", "__Host-loraworks_session=")):
        answer = anonymous_client.post(
            "/sign-in",
            data={"key": new_key().text},
            headers={"Origin": f"{scheme}://testserver"},
        )
        [cookie] = [each for each in answer.headers.get_list("set-cookie") if "lws_" in each]
        assert cookie.startswith(name)
        assert "; Path=/" in cookie
        assert ("; Secure" in cookie) is (scheme == "https")
        assert "domain" not in cookie.lower()


def test_tls_cookie_is_accepted(anonymous_client: TestClient, new_key: NewKey) -> None:
    sign_in(anonymous_client, new_key().text)
    text = anonymous_client.cookies[SESSION_COOKIE]
    anonymous_client.cookies.clear()
    assert anonymous_client.get("/v1/jobs").status_code == 401
    sent = {"Cookie": f"{SECURE_SESSION_COOKIE}={text}"}
    assert anonymous_client.get("/v1/jobs", headers=sent).status_code == 200
    page = anonymous_client.get("/sweeps/new", headers=sent | PAGE).text
    assert "curl -X POST https://testserver/v1/sweeps" in page  # it has the API key


def test_a_password_of_a_proxy_does_not_hide_the_session(
    anonymous_client: TestClient, new_key: NewKey
) -> None:
    proxied = {"Authorization": "Basic dXNlcjpwYXNz"}
    assert anonymous_client.get("/v1/jobs", headers=proxied).status_code == 401
    token = sign_in(anonymous_client, new_key().text)
    assert anonymous_client.get("/v1/jobs", headers=proxied).status_code == 200
    refused = anonymous_client.post("/v1/jobs", json=JOB, headers=proxied)
    assert (refused.status_code, refused.json()["code"]) == (401, "page_token_missing")
    sent = proxied | {CSRF_TOKEN_HEADER: token}
    assert anonymous_client.post("/v1/jobs", json=JOB, headers=sent).status_code == 202
    anonymous_client.cookies.clear()  # as when the session has ended
    refused = anonymous_client.post("/v1/jobs", json=JOB, headers=sent)
    assert (refused.status_code, refused.json()["code"]) == (401, "session_ended")


def test_cookie_alone_reveals_neither_key_nor_csrf_token(
    anonymous_client: TestClient, new_key: NewKey
) -> None:
    """Cookies ignore ports: browsers send it to every service on this host name."""
    key = new_key().text
    token = sign_in(anonymous_client, key)
    stolen = anonymous_client.cookies[SESSION_COOKIE]
    assert key not in stolen
    for path in ("/", "/jobs/new", "/try", "/sign-in", "/v1/jobs", "/static/api.js"):
        answer = anonymous_client.get(path)
        content = f"{answer.text} {answer.headers}"
        assert token not in content
        assert key not in content
    anonymous_client.cookies.clear()
    for headers in ({"Authorization": f"Bearer {stolen}"}, {"X-Page-Token": token}):
        assert anonymous_client.post("/v1/jobs", json=JOB, headers=headers).status_code == 401


def test_cookie_alone_cannot_write(anonymous_client: TestClient, new_key: NewKey) -> None:
    sign_in(anonymous_client, new_key().text)
    for method, path in (("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/1"), ("POST", "/predict")):
        answer = anonymous_client.request(method, path, json=JOB)
        assert answer.status_code == 401, (method, path)
        assert answer.json()["code"] == "page_token_missing"


@pytest.mark.parametrize("token", ["", "0" * 64, "\u00e9"])
def test_wrong_csrf_token_is_rejected(
    anonymous_client: TestClient, new_key: NewKey, token: str
) -> None:
    sign_in(anonymous_client, new_key().text)
    headers = {b"x-page-token": token.encode()}
    answer = anonymous_client.post("/v1/jobs", json=JOB, headers=headers)
    assert answer.status_code == 401


def test_csrf_token_allows_writing(anonymous_client: TestClient, new_key: NewKey) -> None:
    token = sign_in(anonymous_client, new_key().text)
    answer = anonymous_client.post("/v1/jobs", json=JOB, headers={"X-Page-Token": token})
    assert answer.status_code == 202


def test_csrf_token_belongs_to_one_session(anonymous_client: TestClient, new_key: NewKey) -> None:
    key = new_key().text
    token = sign_in(anonymous_client, key)
    sign_in(anonymous_client, key)
    answer = anonymous_client.post("/v1/jobs", json=JOB, headers={"X-Page-Token": token})
    assert answer.status_code == 401


def test_pages_require_scopes(anonymous_client: TestClient, new_key: NewKey) -> None:
    sign_in(anonymous_client, new_key("predict").text)
    answer = anonymous_client.get("/", headers=PAGE)
    assert answer.status_code == 403
    assert "lacks the scope" in answer.text


@pytest.mark.usefixtures("model", "texts")
@pytest.mark.parametrize(
    ("path", "scopes"),
    [
        ("/jobs/new", ("jobs:write",)),
        ("/sweeps/new", ("jobs:write",)),
        ("/predictions", ("predictions:read",)),
    ],
)
def test_forms_list_only_names_that_the_key_may_read(
    anonymous_client: TestClient, new_key: NewKey, path: str, scopes: tuple[str, ...]
) -> None:
    def listed(*more: str) -> set[str]:
        headers = {**PAGE, "Authorization": f"Bearer {new_key(*scopes, *more).text}"}
        options = elements(anonymous_client.get(path, headers=headers).text, "option")
        return {"texts", "sentiment"} & {each.get("value") or each.text for each in options}

    names = {"sentiment"} if path == "/predictions" else {"texts", "sentiment"}
    assert listed() == set()
    assert listed("datasets:read") == names - {"sentiment"}
    assert listed("models:read", "datasets:read") == names


def test_a_model_that_is_not_listed_can_be_typed(
    anonymous_client: TestClient, new_key: NewKey
) -> None:
    key = new_key("predictions:read", "predictions:write", "datasets:write")
    headers = {**PAGE, "Authorization": f"Bearer {key.text}"}
    page = anonymous_client.get("/predictions?model=sentiment", headers=headers).text
    (field,) = (each for each in elements(page, "input") if each.get("name") == "model")
    assert field["value"] == "sentiment"


@pytest.mark.parametrize(
    "key", ["", "nonsense", "x" * 300, "hf_abc", "lw_" + "0" * 32 + "_" + "a" * 43]
)
def test_wrong_key_is_shown_at_the_field(anonymous_client: TestClient, key: str) -> None:
    answer = anonymous_client.post("/sign-in", data={"key": key}, headers=PAGE)
    assert answer.status_code == 401
    assert SESSION_COOKIE not in answer.cookies
    assert 'aria-invalid="true"' in answer.text
    assert not key or key not in answer.text


def test_other_errors_of_sign_in_are_pages(anonymous_client: TestClient) -> None:
    headers = PAGE | {"Origin": "https://evil.example"}
    answer = anonymous_client.post("/sign-in", data={"key": "lw_"}, headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "next_", ["https://evil.example", "//evil.example", "/\\evil.example", "/\n/evil", "evil", ""]
)
def test_no_open_redirect(anonymous_client: TestClient, new_key: NewKey, next_: str) -> None:
    answer = anonymous_client.post("/sign-in", data={"key": new_key().text, "next": next_})
    assert 'id="continue" href="/"' in answer.text


def test_sign_out_ends_the_session(anonymous_client: TestClient, new_key: NewKey) -> None:
    token = sign_in(anonymous_client, new_key().text)
    cookie = anonymous_client.cookies[SESSION_COOKIE]
    anonymous_client.post("/sign-out")
    assert SESSION_COOKIE not in anonymous_client.cookies
    another_tab = {CSRF_TOKEN_HEADER: token}  # of the same browser: without the cookie, too
    for headers in ({"Cookie": f"{SESSION_COOKIE}={cookie}"}, another_tab):
        answer = anonymous_client.get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")


def test_sign_out_in_an_outage_deletes_the_cookie(
    anonymous_client: TestClient, new_key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(anonymous_client, new_key().text)

    def fail(*_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(Authenticator, "_end_session", fail)
    answer = anonymous_client.post("/sign-out", follow_redirects=False)
    assert answer.status_code == 303
    assert SESSION_COOKIE not in anonymous_client.cookies


def test_session_survives_a_restart(auth_settings: Settings, new_key: NewKey) -> None:
    with TestClient(create_app(auth_settings)) as before:
        token = sign_in(before, new_key().text)
        cookie = before.cookies[SESSION_COOKIE]
    with TestClient(create_app(auth_settings), cookies={SESSION_COOKIE: cookie}) as after:
        assert after.get("/v1/jobs").status_code == 200
        answer = after.post("/v1/jobs", json=JOB, headers={"X-Page-Token": token})
        assert answer.status_code == 202


@pytest.mark.parametrize("cookie", ["nonsense", "lw_" + "0" * 32 + "_" + "a" * 43, "lws_"])
def test_invalid_cookie_is_no_session(anonymous_client: TestClient, cookie: str) -> None:
    sent = {"Cookie": f"{SESSION_COOKIE}={cookie}"}
    answer = anonymous_client.get("/v1/jobs", headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
    assert (
        anonymous_client.post("/sign-out", headers=sent, follow_redirects=False).status_code == 303
    )


def test_no_sign_in_while_api_keys_are_off(client: TestClient) -> None:
    assert client.get("/sign-in", follow_redirects=False).headers["location"] == "/"
    assert "signed-in" not in client.get("/").text
    assert client.post("/sign-out", follow_redirects=False).status_code == 303
