"""Errors become answers in the dialect of their route, and tell nothing they should not."""

import errno
import json
import re
from collections.abc import Iterator
from typing import Annotated
from uuid import uuid4

import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.testclient import TestClient

from app.datasets.schemas import DATASET_REF
from app.errors import Conflict
from app.http.dependencies import DatabaseDep
from app.http.error_responses import speaks_predict
from app.http.fields import Body, Text
from app.http.pagination import CURSOR, encode
from app.idempotency.header import PATTERN as IDEMPOTENCY_KEY
from app.main import create_app
from app.registry.refs import MODEL_REF
from app.settings import Settings
from lora_core.errors.data import OneClass
from lora_core.specs.patterns import SAID


class ShelfBusy(Conflict):
    """The shelf is in use."""

    code = "shelf_busy"
    message = "Shelf {at} is in use."


class Item(Body):
    name: Annotated[str, Text(20)]
    size: float = 1.0


router = APIRouter()


@router.post("/v1/items")
@router.post("/models/x/items")
def make(item: Item, limit: int = 1) -> Item:
    return item


@router.get("/v1/fail/{kind}")
@router.get("/models/fail/{kind}")
def fail(kind: str, database: DatabaseDep) -> None:
    match kind:
        case "app":
            raise ShelfBusy(at="shelf.number")
        case "library":
            raise OneClass(file="reviews.csv", label="good")
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret/path")
        case "down":
            raise OperationalError("SELECT 1", {}, Exception("connection refused by 10.0.0.5"))
        case "rival":
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


def test_a_cause_of_the_service_is_told_as_problem_json(client: TestClient) -> None:
    answer = client.get("/v1/fail/app", headers={"X-Request-Id": "r-1"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
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


def test_the_predict_dialect_has_its_own_form(client: TestClient) -> None:
    answer = client.get("/models/fail/app")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["error_type"], body["code"]) == ("Conflict", "shelf_busy")
    assert body["error"] == "Shelf shelf.number is in use."
    assert "detail" not in body


def test_a_cause_of_the_library_is_422_with_its_code(client: TestClient) -> None:
    answer = client.get("/v1/fail/library")
    assert (answer.status_code, answer.json()["code"]) == (422, "one_class")
    assert answer.json()["title"] == "Nothing to tell apart."


def test_a_full_disk_is_told_as_such(client: TestClient) -> None:
    answer = client.get("/v1/fail/disk")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/v1/fail/bug", "/models/fail/bug"])
def test_the_unexpected_is_500_and_tells_only_where_to_look(
    client: TestClient, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = client.get(path, headers={"X-Request-Id": "r-2"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "r-2" in answer.text
    for leak in ("secret", "SELECT", "Traceback", "RuntimeError"):
        assert leak not in answer.text
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (trace,) = [line for line in logged if line["event"] == "unexpected_error"]
    assert "RuntimeError" in trace["exception"]
    assert trace["request_id"] == "r-2"


@pytest.mark.parametrize("path", ["/v1/fail/down", "/models/fail/down"])
def test_a_database_that_is_down_is_503(
    client: TestClient, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "10.0.0.5" not in answer.text
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (told,) = [line for line in logged if line["event"] == "unavailable"]
    assert "10.0.0.5" in told["reason"]  # for the operator
    assert "exception" not in told  # an outage is no fault of the code, and has many requests


def test_two_who_change_the_same_are_told_to_try_again(client: TestClient) -> None:
    answer = client.get("/v1/fail/rival")
    assert (answer.status_code, answer.json()["code"]) == (409, "changed_meanwhile")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "canary" not in answer.text


def test_broken_sql_tells_no_sql(client: TestClient) -> None:
    answer = client.get("/v1/fail/sql")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret_column" not in answer.text


def test_wrong_fields_are_named_by_place_and_code(client: TestClient) -> None:
    answer = client.post("/v1/items?limit=x", json={"name": "", "sizes": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert {(each["at"], each["code"]) for each in answer.json()["errors"]} == {
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
def test_hostile_json_is_refused_in_json_never_500(
    client: TestClient, path: str, body: bytes, status: int
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    told = answer.json()
    assert told["code"] in {"validation_failed", "malformed_json", "malformed_body"}
    assert ("error_type" in told) is path.startswith("/models")
    assert len(answer.content) < 3000


def test_what_was_sent_is_not_repeated(client: TestClient) -> None:
    answer = client.post("/v1/items", json={"name": ["canary"], "size": "canary"})
    assert answer.status_code == 422
    assert "canary" not in answer.text


def test_every_pattern_of_the_api_has_plain_words(client: TestClient) -> None:
    patterns = re.findall(r'"pattern":("(?:[^"\\]|\\.)+")', client.get("/openapi.json").text)
    assert len(patterns) > 3
    own_errors = {CURSOR, DATASET_REF, MODEL_REF, IDEMPOTENCY_KEY}  # no validation error is made
    assert {json.loads(pattern) for pattern in patterns} - own_errors <= SAID.keys()


def test_many_errors_are_cut(client: TestClient) -> None:
    answer = client.post("/v1/items", json={f"field{n}": 1 for n in range(1000)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 50


def test_json_that_is_not_marked_as_json_is_told_so(client: TestClient) -> None:
    answer = client.post(
        "/v1/items", content=b'{"name": "a"}', headers={"Content-Type": "text/plain"}
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/models/x/nowhere", "/v1//items"])
def test_an_unknown_address_is_404_in_the_dialect(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert ("error_type" in answer.json()) is path.startswith("/models")


def test_another_method_is_405_and_names_the_right_one(client: TestClient) -> None:
    answer = client.put("/v1/items", json={})
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"
    assert "POST" in answer.json()["detail"]


def test_another_method_is_told_all_that_the_address_takes(client: TestClient) -> None:
    answer = client.patch("/v1/jobs")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert "use GET or POST" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["after", "ref", "model", "Idempotency-Key"])
def test_openapi_shows_the_form_of_cursors_and_references(client: TestClient, kind: str) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    shown = [
        form
        for operations in paths.values()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if parameter["name"] == kind
        for form in parameter["schema"].get("anyOf", [parameter["schema"]])
        if form["type"] == "string"
    ]
    assert shown
    assert all("pattern" in form for form in shown)


def test_the_forms_of_cursors_and_references_fit_what_is_taken() -> None:
    cursors = [cursor for _ in range(200) if (cursor := encode(uuid4()))]
    for pattern, good, bad in (
        (CURSOR, cursors, ["", "x", cursors[0] + "A", cursors[0][:-1] + "B"]),
        (MODEL_REF, ["a", "a-b@c", "a:3"], ["", "A", "a@", "a:0", "a:b", "-a", "a@b:3"]),
        (DATASET_REF, ["a", "a:2", str(uuid4())], ["", "a:0", "a b", "a@b"]),
        (IDEMPOTENCY_KEY, ["a", str(uuid4()), '"a b"'], ["", "\u00e9", "x" * 256]),
    ):
        assert all(re.search(pattern, text) for text in good)
        assert not any(re.search(pattern, text) for text in bad)


def test_openapi_shows_errors_in_the_dialect_in_which_they_are_told(settings: Settings) -> None:
    client = TestClient(create_app(settings))
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/models/{ref}/predict", "/info", "/health"} <= paths.keys()
    for path, operations in paths.items():
        kind = "application/json" if speaks_predict(path) else "application/problem+json"
        for method, operation in operations.items():
            shown = operation["responses"]["4XX"]["content"]
            assert list(shown) == [kind], (method, path)
            told = client.request("POST" if method == "get" else "PATCH", path)  # 405
            assert told.headers["content-type"] == kind
            schema = shown[kind]["schema"]
            assert set(schema["required"]) <= told.json().keys() <= schema["properties"].keys()
            if speaks_predict(path):
                assert told.json()["error_type"] in schema["properties"]["error_type"]["enum"]


def test_openapi_shows_the_form_of_errors(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    shown = described["paths"]["/v1/items"]["post"]["responses"]
    assert "application/problem+json" in shown["4XX"]["content"]
    assert "HTTPValidationError" not in described["components"]["schemas"]
