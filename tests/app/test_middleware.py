"""What happens to every request."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.testclient import TestClient

from app.auth.service import NewKey
from app.main import create_app
from app.settings import Settings

router = APIRouter()


@router.post("/v1/echo")
@router.post("/models/x/echo")
async def echo(request: Request) -> int:
    return len(await request.body())


class Panic(BaseException):
    """As pyo3 raises it, which no `except Exception` takes."""


@router.get("/v1/panic")
@router.get("/models/x/panic")
async def panic() -> None:
    raise Panic("Option::unwrap()")


@router.get("/v1/panic-in-a-thread")
def panic_in_a_thread() -> None:
    raise Panic("Option::unwrap()")


@router.get("/v1/interrupt")
async def interrupt() -> None:
    raise asyncio.CancelledError()


@router.post("/v1/big", max_body_size=5000)
async def big(request: Request) -> int:
    return sum([len(part) async for part in request.stream()])


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    app = create_app(settings.model_copy(update={"max_body_bytes": 1000}))
    app.include_router(router)
    return app


@pytest.mark.parametrize("path", ["/livez", "/openapi.json", "/nowhere", "/models/x/nowhere"])
def test_every_answer_is_shielded(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/v1/panic", "/models/x/panic", "/v1/panic-in-a-thread"])
def test_a_panic_of_a_library_is_an_error_like_any_other(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "unwrap" not in answer.text
    kind = "application/json" if path.startswith("/models") else "application/problem+json"
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"] in answer.text


def test_what_ends_a_task_on_purpose_is_no_panic(client: TestClient) -> None:
    with pytest.raises(CancelledError):
        client.get("/v1/interrupt")


def test_a_request_id_is_kept_or_made(client: TestClient) -> None:
    assert (
        client.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    )
    made = {client.get("/livez").headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3


@pytest.mark.parametrize("bad", ["a b", "x" * 65, "\x1b[31m", 'a"b', ""])
def test_a_request_id_that_could_harm_a_log_is_replaced(client: TestClient, bad: str) -> None:
    given = client.get("/livez", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
    assert given != bad
    assert len(given) == 32


def test_each_request_is_logged_without_its_query(
    client: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    client.get("/nowhere?token=canary", headers={"X-Request-Id": "r-9"})
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (line,) = [each for each in logged if each.get("request_id") == "r-9"]
    assert (line["event"], line["method"], line["path"]) == ("request", "GET", "/nowhere")
    assert (line["status"], line["caller"]) == (404, "local")
    assert "canary" not in json.dumps(line)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8000", "[::1]:80", "LOCALHOST", "testserver"]
)
def test_own_hosts_are_let_in(client: TestClient, host: str) -> None:
    assert client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost/livez?",
        "localhost:80:80",
        "user@localhost",
        "localhost#",
        "::1",
        "",
        "127.0.0.2",
    ],
)
@pytest.mark.parametrize("path", ["/livez", "/v1/echo", "/models/x/echo"])
def test_foreign_hosts_are_refused_with_keys_off(client: TestClient, host: str, path: str) -> None:
    answer = client.post(path, headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "host_refused")


@pytest.mark.parametrize("hosts", [["localhost", "localhost"], ["localhost", "evil.example"]])
def test_two_hosts_are_refused(client: TestClient, hosts: list[str]) -> None:
    request = client.build_request("GET", "/livez")
    del request.headers["host"]
    request.headers = type(request.headers)([("host", host) for host in hosts])
    assert client.send(request).status_code == 400


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://testserver.evil.example",
        "null",
        "http://testserver:81",
        "",
        "xx://testserver",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_foreign_origins_are_refused(client: TestClient, origin: str, method: str) -> None:
    answer = client.request(method, "/v1/echo", headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")
    assert "access-control-allow-origin" not in answer.headers


IMAGE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
FRAME = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "fetch"),
    [("GET", IMAGE), ("GET", FRAME), ("POST", LINK), ("GET", {}), ("POST", {}), ("OPTIONS", {})],
)
def test_what_a_page_elsewhere_loads_is_refused_with_keys_off(
    client: TestClient, site: str, method: str, fetch: dict[str, str]
) -> None:
    """Browsers send no Origin with an image, a script or a frame."""
    headers = {"Sec-Fetch-Site": site, **fetch}
    for path in ("/v1/datasets/a/rows", "/v1/echo", "/"):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_refused")
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", **IMAGE},
        {"Sec-Fetch-Site": "none", **LINK},
        {"Sec-Fetch-Site": "cross-site", **LINK},
        {"Sec-Fetch-Site": "same-site", **LINK},
        {},
    ],
)
def test_own_pages_links_and_programs_are_let_in(
    client: TestClient, headers: dict[str, str]
) -> None:
    for path in ("/", "/v1/jobs"):
        assert client.get(path, headers=headers).status_code == 200


LAB = {"Origin": "https://lab.example"}
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
}


@pytest.fixture
def shared(locked: Settings) -> Iterator[TestClient]:
    """Keys are on, and pages of the laboratory may call."""
    listed = Settings(**{**locked.model_dump(), "allowed_origins": "https://Lab.example"})
    with TestClient(create_app(listed)) as running:
        yield running


def test_own_and_listed_origins_are_let_in(shared: TestClient) -> None:
    for origin in ("http://testserver", "https://lab.example"):
        assert shared.get("/livez", headers={"Origin": origin}).status_code == 200
    fetched = LAB | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    assert shared.get("/livez", headers=fetched).status_code == 200
    assert shared.options("/v1/jobs", headers=fetched | PREFLIGHT).status_code == 200


def test_a_page_of_a_listed_origin_may_ask_first_and_read(
    shared: TestClient, new_key: Callable[..., NewKey]
) -> None:
    asked = shared.options("/v1/jobs", headers=LAB | PREFLIGHT)
    assert asked.status_code == 200
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert "authorization" in asked.headers["Access-Control-Allow-Headers"]
    refused = shared.get("/v1/jobs", headers=LAB)  # without a key, and it can read that
    read = shared.get(
        "/v1/jobs", headers=LAB | {"Authorization": f"Bearer {new_key('jobs:read').text}"}
    )
    assert (refused.status_code, read.status_code) == (401, 200)
    for answer in (asked, refused, read):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://lab.example"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    assert read.headers["Access-Control-Expose-Headers"] == "*"  # Retry-After and all others


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": "https://evil.example"}, "origin_refused"),
        ({"Origin": "https://lab.example.evil.example"}, "origin_refused"),
        ({"Origin": "http://lab.example"}, "origin_refused"),
        ({"Origin": "null"}, "origin_refused"),
        (LAB | {"Host": "evil.example"}, "host_refused"),
    ],
)
def test_nobody_else_is_answered_before_the_door(
    shared: TestClient, headers: dict[str, str], code: str
) -> None:
    for more in ({}, PREFLIGHT):
        answer = shared.options("/v1/jobs", headers=headers | more)
        assert answer.json()["code"] == code
        assert "access-control-allow-origin" not in answer.headers
    assert shared.options("/v1/jobs", headers=LAB).status_code == 401  # no preflight


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 100):
        yield b"x" * 100


@pytest.mark.parametrize(("path", "key"), [("/v1/echo", "detail"), ("/models/x/echo", "error")])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_413_in_the_dialect(
    client: TestClient, path: str, key: str, chunked: bool
) -> None:
    def body(size: int) -> Iterator[bytes] | bytes:
        return chunks(size) if chunked else b"x" * size

    assert client.post(path, content=body(1000)).json() == 1000
    answer = client.post(path, content=body(1100))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "1000 bytes" in answer.json()[key]


def test_a_body_that_no_route_reads_is_413_too(client: TestClient) -> None:
    answer = client.request("GET", "/livez", content=b"x" * 1100)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_route_may_have_a_larger_limit(client: TestClient) -> None:
    assert client.post("/v1/big", content=chunks(5000)).json() == 5000
    answer = client.post("/v1/big", content=chunks(5100))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "5000 bytes" in answer.json()["detail"]


def test_a_length_that_lies_does_not_lift_the_limit(client: TestClient) -> None:
    answer = client.post("/v1/echo", content=chunks(1100), headers={"Content-Length": "10"})
    assert answer.status_code == 413
