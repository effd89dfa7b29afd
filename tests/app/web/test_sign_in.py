"""A browser signs in with a key and gets a session. Its cookie reads; more takes the page token."""

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.auth import service
from app.auth.middleware import COOKIE, TLS_COOKIE
from app.main import create_app
from app.settings import Settings

NewKey = Callable[..., service.NewKey]
PAGE = {"Accept": "text/html"}
JOB = {"method": {"type": "baseline"}}


def sign_in(client: TestClient, key: str) -> str:
    """Returns the page token."""
    answer = client.post("/sign-in", data={"key": key})
    found = re.search(r'data-token="([0-9a-f]{64})"', answer.text)
    assert found
    return found[1]


def test_who_is_not_signed_in_is_asked_to_and_comes_back(locked_client: TestClient) -> None:
    answer = locked_client.get("/jobs/new?data=reviews", headers=PAGE, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=/jobs/new%3Fdata%3Dreviews"
    form = locked_client.get(answer.headers["location"])
    assert 'name="next" value="/jobs/new?data=reviews"' in form.text


def test_a_key_signs_in_for_reading(locked_client: TestClient, new_key: NewKey) -> None:
    answer = locked_client.post(
        "/sign-in",
        data={"key": f" {new_key().text}\n", "next": "/jobs/new?data=a&x=1"},
    )
    assert answer.status_code == 200
    assert 'id="continue" href="/jobs/new?data=a&amp;x=1"' in answer.text
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert locked_client.get("/").status_code == 200
    assert locked_client.get("/v1/jobs").status_code == 200


def test_under_tls_the_cookie_is_secure(locked_client: TestClient, new_key: NewKey) -> None:
    for scheme, name in (("http", "loraworks_session="), ("https", "__Host-loraworks_session=")):
        answer = locked_client.post(
            "/sign-in",
            data={"key": new_key().text},
            headers={"Origin": f"{scheme}://testserver"},
        )
        [cookie] = [each for each in answer.headers.get_list("set-cookie") if "lws_" in each]
        assert cookie.startswith(name)
        assert "; Path=/" in cookie
        assert ("; Secure" in cookie) is (scheme == "https")
        assert "domain" not in cookie.lower()


def test_the_cookie_of_tls_is_taken(locked_client: TestClient, new_key: NewKey) -> None:
    sign_in(locked_client, new_key().text)
    text = locked_client.cookies[COOKIE]
    locked_client.cookies.clear()
    assert locked_client.get("/v1/jobs").status_code == 401
    sent = {"Cookie": f"{TLS_COOKIE}={text}"}
    assert locked_client.get("/v1/jobs", headers=sent).status_code == 200


def test_who_holds_only_the_cookie_gets_neither_the_key_nor_the_page_token(
    locked_client: TestClient, new_key: NewKey
) -> None:
    """Cookies know no ports: every other service on this host name is sent it."""
    key = new_key().text
    token = sign_in(locked_client, key)
    stolen = locked_client.cookies[COOKIE]
    assert key not in stolen
    for path in ("/", "/jobs/new", "/try", "/sign-in", "/v1/jobs", "/static/api.js"):
        answer = locked_client.get(path)
        told = f"{answer.text} {answer.headers}"
        assert token not in told
        assert key not in told
    locked_client.cookies.clear()
    for headers in ({"Authorization": f"Bearer {stolen}"}, {"X-Page-Token": token}):
        assert locked_client.post("/v1/jobs", json=JOB, headers=headers).status_code == 401


def test_the_cookie_alone_changes_nothing(locked_client: TestClient, new_key: NewKey) -> None:
    sign_in(locked_client, new_key().text)
    for method, path in (("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/1"), ("POST", "/predict")):
        answer = locked_client.request(method, path, json=JOB)
        assert answer.status_code == 401, (method, path)
        assert answer.json()["code"] == "page_token_missing"


@pytest.mark.parametrize("token", ["", "0" * 64, "\u00e9"])
def test_a_wrong_token_is_refused(locked_client: TestClient, new_key: NewKey, token: str) -> None:
    sign_in(locked_client, new_key().text)
    headers = {b"x-page-token": token.encode()}
    answer = locked_client.post("/v1/jobs", json=JOB, headers=headers)
    assert answer.status_code == 401


def test_the_page_token_lets_a_page_act(locked_client: TestClient, new_key: NewKey) -> None:
    token = sign_in(locked_client, new_key().text)
    answer = locked_client.post("/v1/jobs", json=JOB, headers={"X-Page-Token": token})
    assert answer.status_code == 202


def test_the_page_token_of_one_session_is_none_of_another(
    locked_client: TestClient, new_key: NewKey
) -> None:
    key = new_key().text
    token = sign_in(locked_client, key)
    sign_in(locked_client, key)
    answer = locked_client.post("/v1/jobs", json=JOB, headers={"X-Page-Token": token})
    assert answer.status_code == 401


def test_a_key_reads_no_page_that_its_scopes_do_not_allow(
    locked_client: TestClient, new_key: NewKey
) -> None:
    sign_in(locked_client, new_key("predict").text)
    answer = locked_client.get("/", headers=PAGE)
    assert answer.status_code == 403
    assert "lacks the scope" in answer.text


@pytest.mark.parametrize("key", ["", "nonsense", "hf_abc", "lw_" + "0" * 32 + "_" + "a" * 43])
def test_a_wrong_key_is_told_at_the_field(locked_client: TestClient, key: str) -> None:
    answer = locked_client.post("/sign-in", data={"key": key}, headers=PAGE)
    assert answer.status_code in {401, 422}
    assert COOKIE not in answer.cookies
    if key:
        assert 'aria-invalid="true"' in answer.text
        assert key not in answer.text


@pytest.mark.parametrize(
    "next_", ["https://evil.example", "//evil.example", "/\\evil.example", "/\n/evil", "evil", ""]
)
def test_nobody_is_sent_elsewhere(locked_client: TestClient, new_key: NewKey, next_: str) -> None:
    answer = locked_client.post("/sign-in", data={"key": new_key().text, "next": next_})
    assert 'id="continue" href="/"' in answer.text


def test_signing_out_ends_the_session(locked_client: TestClient, new_key: NewKey) -> None:
    sign_in(locked_client, new_key().text)
    cookie = locked_client.cookies[COOKIE]
    locked_client.post("/sign-out")
    assert COOKIE not in locked_client.cookies
    answer = locked_client.get("/v1/jobs", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")


def test_a_session_outlives_a_restart(locked: Settings, new_key: NewKey) -> None:
    with TestClient(create_app(locked)) as before:
        token = sign_in(before, new_key().text)
        cookie = before.cookies[COOKIE]
    with TestClient(create_app(locked), cookies={COOKIE: cookie}) as after:
        assert after.get("/v1/jobs").status_code == 200
        answer = after.post("/v1/jobs", json=JOB, headers={"X-Page-Token": token})
        assert answer.status_code == 202


@pytest.mark.parametrize("cookie", ["nonsense", "lw_" + "0" * 32 + "_" + "a" * 43, "lws_"])
def test_another_cookie_is_no_session(locked_client: TestClient, cookie: str) -> None:
    sent = {"Cookie": f"{COOKIE}={cookie}"}
    answer = locked_client.get("/v1/jobs", headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
    assert locked_client.post("/sign-out", headers=sent, follow_redirects=False).status_code == 303


def test_without_keys_there_is_nothing_to_sign_in_to(client: TestClient) -> None:
    assert client.get("/sign-in", follow_redirects=False).headers["location"] == "/"
    assert "signed-in" not in client.get("/").text
    assert client.post("/sign-out", follow_redirects=False).status_code == 303
