"""Error responses have the format of their route, and expose no internals."""

import errno
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.testclient import TestClient

from app.datasets.schemas import DATASET_REF_PATTERN
from app.errors import Conflict
from app.http.dependencies import DatabaseDep
from app.http.error_responses import (
    uses_mistral_format,
    uses_openai_format,
    uses_predict_format,
)
from app.http.fields import CleanText, RequestModel
from app.http.pagination import CURSOR_PATTERN, encode_cursor
from app.idempotency.header import KEY_PATTERN as IDEMPOTENCY_KEY
from app.main import create_app
from app.openai import ids
from app.openai.url_parameters import AFTER_PATTERN, FILE_ID_PATTERN, JOB_ID_PATTERN
from app.registry.refs import MODEL_REF_PATTERN
from app.settings import Settings
from lora_core.errors.data import SingleClass
from lora_core.specs.fields import PATTERN_DESCRIPTIONS


class ShelfBusy(Conflict):
    code = "shelf_busy"
    title = "The shelf is in use."
    message = "Shelf {at} is in use."


class Item(RequestModel):
    name: Annotated[str, CleanText(20)]
    size: float = 1.0


router = APIRouter()


@router.post("/v1/items")
@router.post("/models/x/items", include_in_schema=False)
def make(item: Item, limit: int = 1) -> Item:
    return item


@router.get("/v1/fail/{kind}")
@router.get("/models/fail/{kind}", include_in_schema=False)
def fail(kind: str, database: DatabaseDep) -> None:
    match kind:
        case "app":
            raise ShelfBusy(at="shelf.number")
        case "library":
            raise SingleClass(file="reviews.csv", label="good")
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret/path")
        case "down":
            raise OperationalError("SELECT 1", {}, Exception("connection refused by 10.0.0.5"))
        case "duplicate":
            raise IntegrityError("INSERT", {}, Exception("Key (name)=(canary) already exists"))
        case "sql":
            with database.read() as session:
                session.execute(text("SELECT secret_column FROM nowhere"))
        case _:
            raise RuntimeError("/srv/secret/path leaked SELECT")


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    app.include_router(router)
    with TestClient(app) as running:
        yield running


def test_app_error_is_problem_json(client: TestClient) -> None:
    response = client.get("/v1/fail/app", headers={"X-Request-Id": "r-1"})
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "urn:loraworks:problem:shelf_busy",
        "title": "The shelf is in use.",
        "status": 409,
        "code": "shelf_busy",
        "detail": "Shelf shelf.number is in use.",
        "instance": "/v1/fail/app",
        "request_id": "r-1",
        "errors": [
            {
                "at": "shelf.number",
                "code": "shelf_busy",
                "message": "Shelf shelf.number is in use.",
            }
        ],
    }


def test_predict_routes_have_their_own_error_format(client: TestClient) -> None:
    response = client.get("/models/fail/app")
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert (body["error_type"], body["code"]) == ("Conflict", "shelf_busy")
    assert body["error"] == "Shelf shelf.number is in use."
    assert "detail" not in body


def test_library_error_is_422_with_its_code(client: TestClient) -> None:
    response = client.get("/v1/fail/library")
    assert (response.status_code, response.json()["code"]) == (422, "one_class")
    assert response.json()["title"] == "All rows have the same label."


def test_full_disk_is_reported(client: TestClient) -> None:
    response = client.get("/v1/fail/disk")
    assert (response.status_code, response.json()["code"]) == (507, "disk_full")
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/v1/fail/bug", "/models/fail/bug"])
def test_unexpected_error_is_500_without_details(
    client: TestClient, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    response = client.get(path, headers={"X-Request-Id": "r-2"})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "r-2" in response.text
    for leak in ("secret", "SELECT", "Traceback", "RuntimeError"):
        assert leak not in response.text
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (trace,) = [line for line in logged if line["event"] == "unexpected_error"]
    assert "RuntimeError" in trace["exception"]
    assert trace["request_id"] == "r-2"


@pytest.mark.parametrize("path", ["/v1/fail/down", "/models/fail/down"])
def test_unavailable_database_is_503(
    client: TestClient, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert "10.0.0.5" not in response.text
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (event,) = [line for line in logged if line["event"] == "unavailable"]
    assert "10.0.0.5" in event["reason"]  # for the operator
    assert "exception" not in event  # an outage is not a bug, and affects many requests


def test_concurrent_update_is_409_with_retry_after(client: TestClient) -> None:
    response = client.get("/v1/fail/duplicate")
    assert (response.status_code, response.json()["code"]) == (409, "concurrent_update")
    assert int(response.headers["Retry-After"]) >= 1
    assert "canary" not in response.text


def test_invalid_sql_is_not_exposed(client: TestClient) -> None:
    response = client.get("/v1/fail/sql")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret_column" not in response.text


def test_invalid_fields_have_path_and_code(client: TestClient) -> None:
    response = client.post("/v1/items?limit=x", json={"name": "", "sizes": 1})
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert {(each["at"], each["code"]) for each in response.json()["errors"]} == {
        ("query.limit", "int_parsing"),
        ("name", "string_too_short"),
        ("sizes", "extra_forbidden"),
    }


@pytest.mark.parametrize("path", ["/v1/items", "/models/x/items"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"name": "a", "size": NaN}', 422),
        (b'{"name": "a", "size": 1e999}', 422),
        (b'{"name": "a", "size": ' + b"9" * 400 + b"}", 422),
        (b'{"name": "a", "size": ' + b"9" * 5000 + b"}", 400),
        (b'{"name": "\\ud800"}', 422),
        (b'{"\\ud800": 1}', 422),
        (b'{"name": "a\\u0000b"}', 422),
        (b'{"name": "\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'{"name": ' + b"[" * 900 + b"]" * 900 + b"}", 422),
        (b'{"name": ', 400),
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
    ],
)
def test_malicious_json_is_rejected_and_never_500(
    client: TestClient, path: str, body: bytes, status: int
) -> None:
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    content = response.json()
    assert content["code"] in {"validation_failed", "malformed_json", "malformed_body"}
    assert ("error_type" in content) is path.startswith("/models")
    assert len(response.content) < 3000


def test_error_response_does_not_repeat_the_input(client: TestClient) -> None:
    response = client.post("/v1/items", json={"name": ["canary"], "size": "canary"})
    assert response.status_code == 422
    assert "canary" not in response.text


def test_every_api_pattern_has_a_description(client: TestClient) -> None:
    patterns = re.findall(r'"pattern":("(?:[^"\\]|\\.)+")', client.get("/openapi.json").text)
    assert len(patterns) > 3
    own_errors = {
        CURSOR_PATTERN,
        DATASET_REF_PATTERN,
        MODEL_REF_PATTERN,
        IDEMPOTENCY_KEY,
        *(FILE_ID_PATTERN, JOB_ID_PATTERN, AFTER_PATTERN),
    }  # they raise no validation error
    assert {json.loads(pattern) for pattern in patterns} - own_errors <= PATTERN_DESCRIPTIONS.keys()


def test_number_of_errors_is_limited(client: TestClient) -> None:
    response = client.post("/v1/items", json={f"field{n}": 1 for n in range(1000)})
    assert response.status_code == 422
    assert len(response.json()["errors"]) == 50


def test_json_without_content_type_is_415(client: TestClient) -> None:
    response = client.post(
        "/v1/items", content=b'{"name": "a"}', headers={"Content-Type": "text/plain"}
    )
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/models/x/nowhere", "/v1//items"])
def test_unknown_url_is_404_in_the_format_of_the_path(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert ("error_type" in response.json()) is path.startswith("/models")


def test_wrong_method_is_405_with_allow_header(client: TestClient) -> None:
    response = client.put("/v1/items", json={})
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"
    assert "POST" in response.json()["detail"]


def test_allow_header_lists_the_methods_of_all_routes(client: TestClient) -> None:
    response = client.patch("/v1/jobs")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, POST")
    assert "Use GET or POST" in response.json()["detail"]


@pytest.mark.parametrize("kind", ["after", "ref", "model", "Idempotency-Key"])
def test_openapi_has_patterns_of_cursors_and_references(
    described: dict[str, Any], kind: str
) -> None:
    shown = [
        form
        for path, operations in described["paths"].items()
        if path != "/mistral/v1/fine_tuning/jobs"  # its `model` is a base model of any name
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if parameter["name"] == kind
        for form in parameter["schema"].get("anyOf", [parameter["schema"]])
        if form["type"] == "string"
    ]
    assert shown
    assert all("pattern" in form for form in shown)


def test_patterns_match_what_is_accepted() -> None:
    cursors = [cursor for _ in range(200) if (cursor := encode_cursor(uuid4()))]
    for pattern, good, bad in (
        (CURSOR_PATTERN, cursors, ["", "x", cursors[0] + "A", cursors[0][:-1] + "B"]),
        (MODEL_REF_PATTERN, ["a", "a-b@c", "a:3"], ["", "A", "a@", "a:0", "a:b", "-a", "a@b:3"]),
        (DATASET_REF_PATTERN, ["a", "a:2", str(uuid4())], ["", "a:0", "a b", "a@b"]),
        (FILE_ID_PATTERN, [ids.file_id(uuid4()), ids.result_file_id(uuid4())], ["", "file-1"]),
        (JOB_ID_PATTERN, [ids.job_id(uuid4())], ["", ids.file_id(uuid4())]),
        (
            AFTER_PATTERN,
            [
                *(ids.file_id(uuid4()), ids.result_file_id(uuid4()), ids.job_id(uuid4())),
                *(ids.event_id(uuid4(), 12), ids.checkpoint_id(uuid4())),
            ],
            ["", "file-1", str(uuid4())],
        ),
        (IDEMPOTENCY_KEY, ["a", str(uuid4()), '"a b"'], ["", "\u00e9", "x" * 256]),
    ):
        assert all(re.search(pattern, text) for text in good)
        assert not any(re.search(pattern, text) for text in bad)


def test_openapi_has_the_error_format_of_each_route(
    settings: Settings, described: dict[str, Any]
) -> None:
    client = TestClient(create_app(settings))
    paths, components = described["paths"], described["components"]["schemas"]
    assert {"/predict", "/models/{ref}/predict", "/info", "/v1/jobs"} <= paths.keys()
    for path, operations in paths.items():
        plain = any(
            uses(path) for uses in (uses_predict_format, uses_openai_format, uses_mistral_format)
        )
        kind = "application/json" if plain else "application/problem+json"
        for method, operation in operations.items():
            shown = operation["responses"]["4XX"]["content"]
            assert shown == operation["responses"]["5XX"]["content"]
            assert list(shown) == [kind], (method, path)
            response = client.request("POST" if method == "get" else "PATCH", path)  # 405
            assert response.headers["content-type"] == kind
            schema = components[shown[kind]["schema"]["$ref"].rpartition("/")[2]]
            assert set(schema["required"]) <= response.json().keys() <= schema["properties"].keys()
            if uses_predict_format(path):
                assert response.json()["error_type"] in schema["properties"]["error_type"]["enum"]


def test_openapi_describes_errors(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    shown = described["paths"]["/v1/items"]["post"]["responses"]
    assert "application/problem+json" in shown["4XX"]["content"]
    assert "HTTPValidationError" not in described["components"]["schemas"]
