"""Middleware of every request."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.testclient import TestClient
from starlette.types import Message

from app.auth.service import CreatedKey
from app.main import create_app
from app.settings import Settings

router = APIRouter()


@router.post("/v1/echo")
@router.post("/models/x/echo")
async def echo(request: Request) -> int:
    return len(await request.body())


class Panic(BaseException):
    """Like pyo3's PanicException, which is not an `Exception`."""


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
def test_every_response_has_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/v1/panic", "/models/x/panic", "/v1/panic-in-a-thread"])
def test_rust_panic_is_an_internal_error(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "unwrap" not in response.text
    kind = "application/json" if path.startswith("/models") else "application/problem+json"
    assert response.headers["Content-Type"] == kind
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-Id"] in response.text


def test_cancellation_is_not_a_panic(client: TestClient) -> None:
    """A server that stops cancels requests that take too long."""
    response = client.get("/v1/interrupt")
    assert (response.status_code, response.json()["code"]) == (503, "stopping")


def test_request_id_is_kept_or_generated(client: TestClient) -> None:
    assert (
        client.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    )
    made = {client.get("/livez").headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3


@pytest.mark.parametrize("bad", ["a b", "x" * 65, "\x1b[31m", 'a"b', ""])
def test_unsafe_request_id_is_replaced(client: TestClient, bad: str) -> None:
    given = client.get("/livez", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
    assert given != bad
    assert len(given) == 32


def test_access_log_has_no_query_string(
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
def test_own_hosts_are_allowed(client: TestClient, host: str) -> None:
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
@pytest.mark.parametrize("path", ["/livez/", "/v1/echo", "/models/x/echo"])
def test_foreign_hosts_are_rejected_with_auth_off(client: TestClient, host: str, path: str) -> None:
    response = client.post(path, headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (400, "host_refused")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/ping"])
def test_probes_may_use_any_address(client: TestClient, path: str) -> None:
    assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200
    assert client.get(path, headers={"Host": "user@10.1.2.3"}).status_code == 400


@pytest.mark.parametrize("hosts", [["localhost", "localhost"], ["localhost", "evil.example"]])
def test_two_host_headers_are_rejected(client: TestClient, hosts: list[str]) -> None:
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
def test_foreign_origins_are_rejected(client: TestClient, origin: str, method: str) -> None:
    response = client.request(method, "/v1/echo", headers={"Origin": origin})
    assert (response.status_code, response.json()["code"]) == (403, "origin_refused")
    assert "access-control-allow-origin" not in response.headers


IMAGE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
FRAME = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "fetch"),
    [("GET", IMAGE), ("GET", FRAME), ("POST", LINK), ("GET", {}), ("POST", {}), ("OPTIONS", {})],
)
def test_cross_site_requests_are_rejected_with_auth_off(
    client: TestClient, site: str, method: str, fetch: dict[str, str]
) -> None:
    """Browsers send no Origin header with an image, a script or a frame."""
    headers = {"Sec-Fetch-Site": site, **fetch}
    for path in ("/v1/datasets/a/rows", "/v1/echo", "/"):
        response = client.request(method, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "cross_site_refused")
        assert "access-control-allow-origin" not in response.headers


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
def test_own_pages_links_and_programs_are_allowed(
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
def shared(auth_settings: Settings) -> Iterator[TestClient]:
    """A client with auth on and an allowed origin."""
    listed = Settings(**{**auth_settings.model_dump(), "allowed_origins": "https://Lab.example"})
    with TestClient(create_app(listed)) as running:
        yield running


def test_own_and_allowed_origins_are_accepted(shared: TestClient) -> None:
    for origin in ("http://testserver", "https://lab.example"):
        assert shared.get("/livez", headers={"Origin": origin}).status_code == 200
    fetched = LAB | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    assert shared.get("/livez", headers=fetched).status_code == 200
    assert shared.options("/v1/jobs", headers=fetched | PREFLIGHT).status_code == 200


def test_page_of_allowed_origin_can_preflight_and_read(
    shared: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    preflight = shared.options("/v1/jobs", headers=LAB | PREFLIGHT)
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    refused = shared.get(
        "/v1/jobs", headers=LAB
    )  # without a key, but the page can read the response
    read = shared.get(
        "/v1/jobs", headers=LAB | {"Authorization": f"Bearer {new_key('jobs:read').text}"}
    )
    assert (refused.status_code, read.status_code) == (401, 200)
    for response in (preflight, refused, read):
        assert response.headers["Access-Control-Allow-Origin"] == "https://lab.example"
        assert "Access-Control-Allow-Credentials" not in response.headers
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
def test_other_origins_are_rejected_before_authentication(
    shared: TestClient, headers: dict[str, str], code: str
) -> None:
    for more in ({}, PREFLIGHT):
        response = shared.options("/v1/jobs", headers=headers | more)
        assert response.json()["code"] == code
        assert "access-control-allow-origin" not in response.headers
    assert shared.options("/v1/jobs", headers=LAB).status_code == 401  # no preflight


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 100):
        yield b"x" * 100


@pytest.mark.parametrize(("path", "key"), [("/v1/echo", "detail"), ("/models/x/echo", "error")])
@pytest.mark.parametrize("chunked", [True, False])
def test_too_large_body_is_413_in_the_format_of_the_route(
    client: TestClient, path: str, key: str, chunked: bool
) -> None:
    def body(size: int) -> Iterator[bytes] | bytes:
        return chunks(size) if chunked else b"x" * size

    assert client.post(path, content=body(1000)).json() == 1000
    response = client.post(path, content=body(1100))
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "1000 bytes" in response.json()[key]


def test_too_large_body_is_413_even_if_no_route_reads_it(client: TestClient) -> None:
    response = client.request("GET", "/livez", content=b"x" * 1100)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_route_may_have_a_larger_body_limit(client: TestClient) -> None:
    assert client.post("/v1/big", content=chunks(5000)).json() == 5000
    response = client.post("/v1/big", content=chunks(5100))
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "5000 bytes" in response.json()["detail"]


def test_wrong_content_length_does_not_bypass_the_limit(client: TestClient) -> None:
    response = client.post("/v1/echo", content=chunks(1100), headers={"Content-Length": "10"})
    assert response.status_code == 413


def test_rejected_requests_leave_no_cycles(settings: Settings) -> None:
    """The garbage collector would have to find them, and it stops every thread."""
    app = create_app(settings)
    scope = {"type": "http", "method": "GET", "path": "/jobs", "headers": [(b"host", b"evil.test")]}
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def send_requests(count: int) -> None:
        for _ in range(count):
            await app({**scope, "query_string": b""}, receive, send)

    async def count_garbage() -> int:
        await send_requests(1)
        gc.collect()
        gc.disable()
        try:
            await send_requests(10)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(count_garbage()) < 10
    assert statuses == [400] * 11
