"""A browser signs in with a key. Its cookie is good for reading; more needs the page's token."""

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from app.keys import service
from app.keys.auth import COOKIE

NewKey = Callable[..., service.NewKey]
PAGE = {"Accept": "text/html"}
JOB = {"method": {"type": "baseline"}}


def sign_in(client: TestClient, key: str, **more: str) -> object:
    return client.post("/sign-in", data={"key": key, **more}, follow_redirects=False)


def page_token(client: TestClient) -> str:
    found = re.search(r'<meta name="page-token" content="([0-9a-f]{64})">', client.get("/").text)
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
        data={"key": f" {new_key().text}\n", "next": "/jobs/new"},
        follow_redirects=False,
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/new")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert locked_client.get("/").status_code == 200
    assert locked_client.get("/v1/jobs").status_code == 200


def test_under_tls_the_cookie_is_secure(locked_client: TestClient, new_key: NewKey) -> None:
    for scheme, secure in (("http", False), ("https", True)):
        answer = locked_client.post(
            "/sign-in",
            data={"key": new_key().text},
            headers={"Origin": f"{scheme}://testserver"},
            follow_redirects=False,
        )
        assert ("secure" in answer.headers["set-cookie"].lower()) is secure


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
    sign_in(locked_client, new_key().text)
    token = page_token(locked_client)
    answer = locked_client.post("/v1/jobs", json=JOB, headers={"X-Page-Token": token})
    assert answer.status_code == 202


def test_the_token_of_one_key_is_none_of_another(
    locked_client: TestClient, new_key: NewKey
) -> None:
    sign_in(locked_client, new_key(name="one").text)
    token = page_token(locked_client)
    sign_in(locked_client, new_key(name="two").text)
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
    answer = locked_client.post(
        "/sign-in", data={"key": new_key().text, "next": next_}, follow_redirects=False
    )
    assert answer.headers["location"] == "/"


def test_signing_out_forgets_the_key(locked_client: TestClient, new_key: NewKey) -> None:
    sign_in(locked_client, new_key().text)
    locked_client.post("/sign-out")
    assert locked_client.get("/v1/jobs").status_code == 401


def test_without_keys_there_is_nothing_to_sign_in_to(client: TestClient) -> None:
    assert client.get("/sign-in", follow_redirects=False).headers["location"] == "/"
    assert "page-token" not in client.get("/").text
