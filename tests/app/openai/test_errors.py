"""Every error under `/openai/` has the form that clients of OpenAI read, and is sent once or again
as it is of use."""

import errno
import json
from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import openai
import pytest
from fastapi import APIRouter, FastAPI
from openai import OpenAI
from pydantic import Field
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.errors import Conflict, ServiceUnavailable, TooManyRequests
from app.http.fields import CleanText, RequestModel
from app.main import create_app
from app.serving.errors import InferenceFailed
from app.settings import Settings
from lora_core.errors.data import SingleClass
from tests.app.openai.conftest import OpenClient, RequestCounter


class ShelfBusy(Conflict):
    code = "shelf_busy"
    title = "The shelf is in use."
    message = "Shelf {at} is in use."


class ShelfRush(TooManyRequests):
    code = "shelf_rush"
    title = "Too many readers at the shelf."
    message = "Too many readers. Try again in {retry_after} s."


class ShelfFull(TooManyRequests):
    code = "shelf_full"
    title = "The shelf is full."
    message = "The shelf is full."


class ShelfClosed(ServiceUnavailable):
    code = "shelf_closed"
    title = "The shelf is closed."
    message = "The shelf is closed for {retry_after} s."


class Item(RequestModel):
    name: Annotated[str, CleanText(20)]
    sizes: list[float] = Field(default_factory=list)


ERRORS: dict[str, Callable[[], Exception]] = {
    "conflict": lambda: ShelfBusy(at="shelf.number"),
    "again": lambda: IntegrityError("INSERT", {}, Exception("Key (name)=(canary) already exists")),
    "rush": lambda: ShelfRush(retry_after=0.01),
    "full": lambda: ShelfFull(),
    "closed": lambda: ShelfClosed(retry_after=0.01),
    "long": lambda: ShelfClosed(retry_after=300),
    "down": lambda: OperationalError("SELECT 1", {}, Exception("refused by 10.0.0.5")),
    "library": lambda: SingleClass(file="reviews.csv", label="good"),
    "inference": lambda: InferenceFailed(kind="RuntimeError"),
    "disk": lambda: OSError(errno.ENOSPC, "No space left on device", "/srv/secret/path"),
    "bug": lambda: RuntimeError("/srv/secret/path leaked SELECT"),
}
router = APIRouter(prefix="/openai/v1")


@router.post("/items")
def make(item: Item, limit: int = 1) -> Item:
    return item


@router.get("/fail/{kind}")
def fail(kind: str) -> None:
    raise ERRORS[kind]()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    made = create_app(settings)
    made.include_router(router)
    return made


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """Return the error of a response that has the form, and nothing else."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("kind", "error_class", "status", "error_type", "code", "requests"),
    [
        ("conflict", openai.ConflictError, 409, "invalid_request_error", "shelf_busy", 1),
        ("rush", openai.RateLimitError, 429, "requests", "shelf_rush", 3),
        ("full", openai.RateLimitError, 429, "requests", "shelf_full", 1),
        ("closed", openai.InternalServerError, 503, "server_error", "shelf_closed", 3),
        ("long", openai.InternalServerError, 503, "server_error", "shelf_closed", 1),
        ("library", openai.BadRequestError, 400, "invalid_request_error", "one_class", 1),
        ("inference", openai.InternalServerError, 500, "server_error", "inference_failed", 1),
        ("disk", openai.InternalServerError, 507, "server_error", "disk_full", 1),
        ("bug", openai.InternalServerError, 500, "server_error", "internal_error", 1),
    ],
)
def test_client_raises_its_error_after_the_right_number_of_requests(
    sdk: OpenAI,
    counter: RequestCounter,
    kind: str,
    error_class: type[openai.APIStatusError],
    status: int,
    error_type: str,
    code: str,
    requests: int,
) -> None:
    with pytest.raises(error_class) as raised:
        sdk.get(f"/fail/{kind}", cast_to=object)
    assert counter.requests == requests
    error = raised.value
    assert (error.status_code, error.type, error.code) == (status, error_type, code)
    assert error.request_id
    assert error.param == ("shelf.number" if kind == "conflict" else None)
    assert error_of(error.response)["message"] in error.message
    for leak in ("secret", "SELECT", "Traceback"):
        assert leak not in error.response.text


@pytest.mark.parametrize(("kind", "status"), [("again", 409), ("down", 503)])
def test_what_passes_by_itself_is_to_be_sent_again(
    open_client: OpenClient, kind: str, status: int
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        open_client(max_retries=0).get(f"/fail/{kind}", cast_to=object)
    headers = raised.value.response.headers
    assert (raised.value.status_code, headers["x-should-retry"]) == (status, "true")
    assert 0 < float(headers["retry-after"]) < 120
    assert "canary" not in raised.value.response.text


def test_unknown_route_and_method(sdk: OpenAI, counter: RequestCounter) -> None:
    with pytest.raises(openai.NotFoundError, match="no resource at this URL") as raised:
        sdk.embeddings.create(model="films", input="a film")
    assert error_of(raised.value.response)["code"] == "not_found"
    with pytest.raises(openai.APIStatusError, match="Use POST") as refused:
        sdk.get("/items", cast_to=object)
    assert error_of(refused.value.response)["code"] == "method_not_allowed"
    assert refused.value.response.headers["allow"] == "POST"
    assert counter.requests == 2


class TestBadRequests:
    """Errors from before and inside the route."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_body_bytes": 200_000})

    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            (b'{"name": ""}', "validation_failed", "name"),
            (b'{"name": "a", "sizes": [1, "x"]}', "validation_failed", "sizes.1"),
            (b'{"name": "a", "size": 1}', "validation_failed", "size"),
            (b'{"name": "a", "sizes": [NaN]}', "validation_failed", "sizes.0"),
            (b'{"name": "\\ud800"}', "validation_failed", "name"),
            (b'{"\\ud800": 1}', "validation_failed", "body"),
            (b'{"name": "a\\u0000b"}', "validation_failed", "name"),
            (b'{"name": "\xff"}', "malformed_body", None),
            (b'{"name": ', "malformed_json", None),
            (b"[" * 100_000, "malformed_body", None),
            (b"", "validation_failed", "body"),
            (b"null", "validation_failed", "body"),
            (b"[]", "validation_failed", "body"),
            (b'"canary"', "validation_failed", "body"),
        ],
    )
    def test_invalid_body_is_400(
        self, client: TestClient, body: bytes, code: str, param: str | None
    ) -> None:
        response = client.post(
            "/openai/v1/items", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 400
        error = error_of(response)
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert error["param"] == param
        assert "canary" not in response.text
        assert "x-should-retry" not in response.headers

    def test_query_parameter_is_named_alone(self, client: TestClient) -> None:
        response = client.post("/openai/v1/items?limit=x", json={"name": "a"})
        assert (response.status_code, error_of(response)["param"]) == (400, "limit")

    def test_large_body(self, client: TestClient) -> None:
        response = client.post("/openai/v1/items", json={"name": "a" * 300_000})
        assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")

    def test_other_content_type(self, client: TestClient) -> None:
        response = client.post(
            "/openai/v1/items", content=b'{"name": "a"}', headers={"Content-Type": "text/plain"}
        )
        assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")

    @pytest.mark.parametrize(
        ("headers", "status", "code"),
        [
            ({"Host": "evil.example"}, 400, "host_refused"),
            ({"Origin": "https://evil.example"}, 403, "origin_refused"),
            ({"Sec-Fetch-Site": "cross-site"}, 403, "cross_site_refused"),
        ],
    )
    def test_rejection_before_routing(
        self, client: TestClient, headers: dict[str, str], status: int, code: str
    ) -> None:
        response = client.get("/openai/v1/models", headers=headers)
        assert (response.status_code, error_of(response)["code"]) == (status, code)

    def test_browser_gets_the_form_too(self, client: TestClient) -> None:
        response = client.get("/openai/v1/nothing", headers={"Accept": "text/html"})
        assert (response.status_code, error_of(response)["code"]) == (404, "not_found")

    def test_paths_beside_the_prefix_keep_their_form(self, client: TestClient) -> None:
        for path in ("/openai", "/openaix/v1", "/v1/openai/"):
            assert client.get(path).headers["content-type"] == "application/problem+json"

    def test_request_id_of_the_client(self, client: TestClient) -> None:
        response = client.post("/openai/v1/items", json={}, headers={"X-Request-Id": "r-7"})
        assert response.headers["x-request-id"] == "r-7"


class TestWithKeys:
    """With authentication."""

    @pytest.fixture
    def app(self, auth_settings: Settings) -> FastAPI:
        return create_app(auth_settings)

    @pytest.mark.parametrize(
        ("key", "code"),
        [("sk-proj-123", "key_malformed"), ("hf_other", "foreign_token")],
    )
    def test_other_key(
        self, open_client: OpenClient, counter: RequestCounter, key: str, code: str
    ) -> None:
        with pytest.raises(openai.AuthenticationError) as raised:
            open_client(key).models.list()
        assert counter.requests == 1
        error = error_of(raised.value.response)
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert raised.value.response.headers["www-authenticate"] == "Bearer"
        assert key not in raised.value.response.text

    def test_no_key(self, url: str) -> None:
        response = httpx2.get(f"{url}/models")
        assert (response.status_code, error_of(response)["code"]) == (401, "key_missing")

    def test_missing_scope(
        self,
        open_client: OpenClient,
        new_key: Callable[..., CreatedKey],
        counter: RequestCounter,
    ) -> None:
        client = open_client(new_key("predict").text)
        with pytest.raises(openai.PermissionDeniedError, match="models:read") as raised:
            client.models.list()
        assert error_of(raised.value.response)["code"] == "scope_missing"
        assert counter.requests == 1
        assert open_client(new_key("models:read").text).models.list().data == []


def test_unexpected_error_is_logged(sdk: OpenAI, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(openai.InternalServerError, match="Internal server error") as raised:
        sdk.get("/fail/bug", cast_to=object)
    logged = [
        json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")
    ]
    (trace,) = [line for line in logged if line["event"] == "unexpected_error"]
    assert "RuntimeError" in trace["exception"]
    assert trace["request_id"] == raised.value.request_id
