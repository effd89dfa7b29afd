"""Invalid bodies: each gets a stable code and the path of the field, and nothing is stored."""

from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.database.engines import Database
from app.queue.tables import Job

LORA = {"type": "lora"}
NO_FIELD_OF_LORA = (
    "unknown field (known fields: type, variant, r, alpha, dropout, targets, layers, head)"
)


@pytest.fixture(autouse=True)
def _nothing_is_stored(database: Database) -> Any:
    yield
    with database.read() as session:
        assert session.scalars(select(func.count()).select_from(Job)).one() == 0


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"method": {"type": "auto", "r": 8}}, "method.r"),
        ({"method": {"type": "auto", "time_budget": 0}}, "method.time_budget"),
        ({"method": {"type": "auto", "candidates": []}}, "method.candidates"),
        ({"method": {"type": "auto"}, "stop": {"patience": 2}}, "stop"),
        ({"method": {"type": "probe", "class_weight": "even"}}, "method.class_weight"),
        ({"method": {}}, "method"),
        ({"method": {"type": "magic"}}, "method"),
        ({"method": {**LORA, "r": 0}}, "method.r"),
        ({"method": {**LORA, "r": -8}}, "method.r"),
        ({"method": {**LORA, "r": 4097}}, "method.r"),
        ({"method": {**LORA, "r": 10**40}}, "method.r"),
        ({"method": {**LORA, "r": "eight"}}, "method.r"),
        ({"method": {**LORA, "alpha": 0}}, "method.alpha"),
        ({"method": {**LORA, "dropout": 1}}, "method.dropout"),
        ({"method": {**LORA, "targets": []}}, "method.targets"),
        ({"method": {**LORA, "targets": ["query", "head"]}}, "method.targets.1"),
        ({"method": {**LORA, "targets": ["query", "query"]}}, "method.targets"),
        ({"method": {**LORA, "layers": [-1]}}, "method.layers.0"),
        ({"method": {**LORA, "variant": "qlora"}}, "method.variant"),
        ({"method": {**LORA, "rank": 8}}, "method.rank"),
        ({"method": {"type": "full", "r": 8}}, "method.r"),
        ({"method": {"type": "baseline", "blocks": -1}}, "method.blocks"),
        ({"method": LORA, "learning_rate": 1e-3}, "learning_rate"),
        ({"method": LORA, "optim": {"learning_rate": 0}}, "optim.learning_rate"),
        ({"method": LORA, "optim": {"epochs": 0}}, "optim.epochs"),
        ({"method": LORA, "base": ""}, "base"),
        ({"method": LORA, "base": "a\x00b"}, "base"),
        ({"method": LORA, "base_revision": "main"}, "base_revision"),
        ({"method": LORA, "data": {"test_size": 0}}, "data.test_size"),
        ({"method": LORA, "data": {"text_column": "a\x00"}}, "data.text_column"),
        ({"method": LORA, "data": {"source": {"dev": "imdb"}}}, "data.source"),
        ({"method": LORA, "runtime": {"device": "tpu"}}, "runtime.device"),
        ({"method": LORA, "priority": 101}, "priority"),
        ({"method": LORA, "name": ""}, "name"),
        ({"method": LORA, "name": "x" * 201}, "name"),
        ({"method": LORA, "name": "a\x00"}, "name"),
        ({"method": LORA, "metadata": {"a": 1}}, "metadata.a"),
        ({"method": LORA, "metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"method": LORA, "register_as": "Sentiment Model"}, "register_as"),
        ({"method": LORA, "register_as": "$(id)"}, "register_as"),
        ({"method": LORA, "register_as": "a\n"}, "register_as"),
        ({"method": LORA, "register_as": "a" * 65}, "register_as"),
    ],
)
def test_an_invalid_field_is_named(client: TestClient, body: dict[str, Any], at: str) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "validation_failed"
    (error,) = problem["errors"]
    assert error["at"].startswith(at)
    for word in ("Input", "String", "Tuple", "permitted", "pattern"):  # pydantic's own
        assert word not in error["message"]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ('{"method":{"type":"lora","alpha":NaN}}', "method.alpha"),
        ('{"method":{"type":"lora","alpha":Infinity}}', "method.alpha"),
        ('{"method":{"type":"lora"},"optim":{"learning_rate":1e999}}', "optim.learning_rate"),
        ('{"method":{"type":"lora"},"data":{"test_size":NaN}}', "data.test_size"),
        ('{"method":{"type":"lora"},"name":"\\ud800"}', "name"),
        ('{"method":{"type":"lora"},"base":"\\ud800"}', "base"),
        ('{"method":{"type":"lora"},"data":{"source":"\\ud800"}}', "data.source"),
        ('{"method":{"type":"lora"},"metadata":{"\\udfff":"x"}}', "metadata"),
    ],
)
def test_non_finite_numbers_and_invalid_unicode_are_rejected(
    client: TestClient, text: str, at: str
) -> None:
    answer = client.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "validation_failed"
    assert problem["errors"][0]["at"].startswith(at)


@pytest.mark.parametrize(
    "text", ["", "{", "method=lora", '{"method": lora}', "\xff", "[" * 100_000]
)
def test_a_body_that_is_not_json_is_rejected(client: TestClient, text: str) -> None:
    answer = client.post(
        "/v1/jobs", content=text.encode("latin-1"), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("body", [[], "lora", 1, None])
def test_json_that_is_not_an_object_is_rejected(client: TestClient, body: Any) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize(
    ("fields", "code", "expected"),
    [
        ({"method": {**LORA, "r": 385}}, "rank_too_large", "at most 384"),
        ({"method": {**LORA, "layers": [6]}}, "layer_out_of_range", "6 layers"),
        ({"method": {"type": "baseline", "blocks": 7}}, "layer_out_of_range", "6 layers"),
        ({"data": {"max_length": 513}}, "length_too_large", "512 positions"),
        ({"base": "no-such-base"}, "base_not_found", "LORAWORKS_HUB_MODELS"),
        ({"base": "electra-base"}, "base_not_found", "distilbert-base-uncased"),
        ({"base": "mine:3"}, "base_not_found", "no such model"),
        ({"data": {"source": "no-such-data"}}, "data_not_found", "rotten-tomatoes"),
        ({"data": {"source": "hub:glue"}}, "data_not_found", "LORAWORKS_HUB_DATASETS"),
        ({"data": {"source": {"test": "imdb"}}}, "missing_split", "train"),
        ({"data": {"train_size": 8000, "test_size": 2000}}, "too_few_rows", "8,530"),
    ],
)
def test_settings_that_do_not_fit_get_an_error_with_the_limit(
    client: TestClient, fields: dict[str, Any], code: str, expected: str
) -> None:
    answer = client.post("/v1/jobs", json={"method": LORA, **fields})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert expected in answer.json()["detail"]


@pytest.mark.parametrize(
    "call",
    ["GET /v1/jobs/{}", "POST /v1/jobs/{}/cancel", "DELETE /v1/jobs/{}", "GET /v1/jobs/{}/metrics",
     "GET /v1/jobs/{}/events", "GET /v1/jobs/{}/stream"],
)  # fmt: skip
def test_an_unknown_job_is_not_found(client: TestClient, call: str) -> None:
    verb, path = call.split()
    unknown = "01900000-0000-7000-8000-000000000000"
    answer = client.request(verb, path.format(unknown))
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert unknown in answer.json()["detail"]


@pytest.mark.parametrize(
    "query",
    ["/v1/jobs?limit=0", "/v1/jobs?limit=101", "/v1/jobs?state=sleeping", "/v1/jobs?method=magic",
     "/v1/jobs?after=nonsense"],
)  # fmt: skip
def test_invalid_query_parameters_are_rejected(client: TestClient, query: str) -> None:
    assert client.get(query).status_code == 422


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        (
            {"method": {**LORA, "targets": ["head"]}},
            [
                (
                    "method.targets.0",
                    "must be 'query', 'key', 'value', 'projection' or 'mlp'",
                )
            ],
        ),
        (
            {"method": {**LORA, "targets": ["query", "query"]}},
            [("method.targets", "entries must be unique")],
        ),
        (
            {"method": {"type": "magic"}},
            [
                (
                    "method.type",
                    "must be one of 'auto', 'linear', 'probe', 'baseline', 'lora', 'full'",
                )
            ],
        ),
        ({"method": {}}, [("method.type", "is required")]),
        (
            {"method": LORA, "data": {"source": {"dev": "imdb"}}},
            [("data.source.dev", "must be 'train', 'validation' or 'test'")],
        ),
        (
            {"method": LORA, "data": {"train_size": 0}},
            [
                ("data.train_size", "must be at least 1 or greater than 0"),
            ],
        ),
        (
            {"method": LORA, "metadata": {"int": 1}},
            [("metadata.int", "must be a string, not a number")],
        ),
        (
            {"method": LORA, "metadata": {"constrained-str": 1}},
            [("metadata.constrained-str", "must be a string, not a number")],
        ),
        ({"method": {**LORA, "lora": 1}}, [("method.lora", NO_FIELD_OF_LORA)]),
        ({"method": {**LORA, "lora": {"lora": 1}}}, [("method.lora", NO_FIELD_OF_LORA)]),
        (
            {"method": {**LORA, "alphas": 1.0}},
            [("method.alphas", "unknown field (did you mean alpha?)")],
        ),
        (
            {"preset": "seed", "method": {"r": "8", "alpha": None}},
            [
                ("method.r", "must be an integer, not a string"),
                ("method.alpha", "must be a number, not null"),
            ],
        ),
        (
            {"method": LORA, "data": {"validation_size": "a", "source": 1}},
            [
                ("data.source", "must be a string or an object, not a number"),
                ("data.validation_size", "must be an integer or a number, not a string"),
            ],
        ),
        (
            {"method": LORA, "register_as": "A B", "base": ""},
            [
                ("base", "must not be empty"),
                (
                    "register_as",
                    "must be 1 to 64 lowercase letters a-z, digits and hyphens, without a hyphen "
                    "at either end",
                ),
            ],
        ),
    ],
)
def test_each_error_is_reported_once_with_the_field_names_of_the_body(
    client: TestClient, body: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    problem = client.post("/v1/jobs", json=body).json()
    assert [(error["at"], error["message"]) for error in problem["errors"]] == errors
    assert "magic" not in problem["detail"]


@pytest.mark.parametrize("column", ["text_column", "label_column", "split_column"])
def test_a_sample_has_no_other_columns(client: TestClient, column: str) -> None:
    body = {"method": LORA, "data": {"source": "rotten-tomatoes", column: "review"}}
    problem = client.post("/v1/jobs", json=body).json()
    assert problem["code"] == "missing_column"
    assert "no column 'review'. Columns: text, label" in problem["detail"]


@pytest.mark.parametrize("path", ["", "/metrics", "/events", "/stream"])
def test_an_invalid_id_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/v1/jobs/nope{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert "'nope'" in answer.json()["detail"]
