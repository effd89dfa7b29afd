"""Generated requests to every operation: no 5xx, and only responses that the documents describe.

Each operation has `4XX` and `5XX` in the OpenAPI, which fixes the body of an error, but not its
status. That comes from docs/reference/errors.md, by the code, and from `REJECTED`.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings, strategies
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from app.auth.tables import ALL_SCOPES
from app.main import create_app
from app.settings import Settings
from tests.app.jobs.conftest import submit, worker
from tests.app.jobs.test_misclassified import finish
from tests.app.serving.conftest import publish
from tests.app.test_authentication import NewKey, error_of
from tests.app.test_described_responses import ENDLESS, example_of, examples

__all__ = ["examples", "finish", "publish", "submit", "worker"]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
REQUESTS = 8  # to each operation
# Parameters that no GET has. There is no row for the last two.
OTHER_EXAMPLES = {
    "alias": "production",
    "number": "1",
    "labeling/row": "1",
    "delivery_id": "0" * 32,
    "feedback_id": "0" * 32,
}
ORDER = ("GET", "PUT", "PATCH", "POST", "DELETE")  # what is deleted was read before
# What an operation may answer if the caller may call it, alone and in time.
REJECTED = {400, 404, 409, 422}
BODY_REJECTED = {413, 415}
# An operation that responds with one of these was not called.
OF_THE_ROUTER = {"not_found", "method_not_allowed"}
ERRORS = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
OTHER_STATUS = {"openai": {422: 400, 424: 500}, "mistral": {424: 500}}  # as errors.md says


def documented_errors() -> dict[str, set[int]]:
    """By code: its statuses in docs/reference/errors.md."""
    text = ERRORS.read_text(encoding="utf-8")
    found: dict[str, set[int]] = {}
    for code, status in re.findall(r"^\| `(\w+)` \| (\d*) ?\|", text, re.MULTILINE):
        found.setdefault(code, set()).add(int(status or 422))
    for codes, status in re.findall(r"((?:`\w+`,?\s+)+)\((\d{3})\b", text):
        found |= {code: {int(status)} for code in re.findall(r"\w+", codes)}
    return found


DOCUMENTED = documented_errors()


@pytest.fixture(params=["off", "on"])
def sender(
    request: pytest.FixtureRequest, client: TestClient, auth_settings: Settings, new_key: NewKey
) -> Iterator[TestClient]:
    """A client without keys, or one with a key that has all scopes, of an app with auth on."""
    if request.param == "off":
        yield client
        return
    headers = {"Authorization": f"Bearer {new_key().text}"}
    with TestClient(create_app(auth_settings), headers=headers) as running:
        yield running


def described_operations(app: FastAPI) -> Iterator[Any]:
    described: Any = schemathesis.openapi.from_dict(app.openapi())
    described.config.generation.with_security_parameters = False  # the client has its own key
    operations = [each.ok() for each in described.get_all_operations()]
    for operation in sorted(operations, key=lambda each: ORDER.index(each.method.upper())):
        if operation.definition.raw["operationId"] not in ENDLESS:
            yield operation


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_generated_requests(app: FastAPI, sender: TestClient, examples: Mapping[str, str]) -> None:
    failures, sent, succeeded = {}, 0, 0
    for operation in described_operations(app):
        names = re.findall(r"\{(\w+)\}", operation.path)
        known = {**OTHER_EXAMPLES, **examples}
        existing = {name: example_of(operation.path, name, known) for name in names}
        cases = (
            operation.as_strategy(path_parameters=existing),
            operation.as_strategy(),
            operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=existing),
        )
        rejected = REJECTED | (BODY_REJECTED if operation.body else set())
        try:
            statuses = send_requests(sender, cases, REQUESTS, rejected)
        except Exception as error:
            failures[operation.label] = str(error)
        else:
            sent += 1
            succeeded += min(statuses) < 300
    assert not failures, "\n".join(failures.values())
    assert succeeded > sent / 3  # many need what an earlier request took or changed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_generated_requests_of_those_who_may_not_call(
    app: FastAPI, anonymous_client: TestClient, new_key: NewKey
) -> None:
    """Each operation with a scope is called without a key, and with a key that lacks the scope.

    The latter only with valid requests: a body that cannot be parsed is a 400 before that.
    """
    called = 0
    for operation in described_operations(app):
        needed = {scope for each in operation.definition.raw["security"] for scope in each["key"]}
        if not needed:
            continue
        valid, invalid = operation.as_strategy(), operation.as_strategy(GenerationMode.NEGATIVE)
        anonymous_client.headers.pop("Authorization", None)
        assert send_requests(anonymous_client, (valid, invalid), 2, {401}) == {401}, operation.label
        key = new_key(*(scope for scope in ALL_SCOPES if scope not in needed))
        anonymous_client.headers["Authorization"] = f"Bearer {key.text}"
        assert send_requests(anonymous_client, (valid,), 2, {403}) == {403}, operation.label
        called += 1
    assert called > 100


def send_requests(
    sender: TestClient,
    cases: Collection[strategies.SearchStrategy[Case[Any]]],
    count: int,
    rejected: Collection[int],
) -> set[int]:
    """Send requests, and return the statuses. All but `rejected` are of success."""
    statuses = set()

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategies.one_of(*cases))
    def send(case: Case[Any]) -> None:
        kwargs = case.as_transport_kwargs(base_url="http://testserver")
        sent: Any = requests.Request(**kwargs).prepare()
        response = sender.request(
            sent.method, sent.url, content=sent.body, headers=dict(sent.headers)
        )
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)
        if response.is_success:
            return
        code = error_of(response)["code"]
        where = f"{case.operation.label}: {response.status_code} {code}"
        other = OTHER_STATUS.get(case.path.split("/")[1], {})
        documented = {other.get(each, each) for each in DOCUMENTED[code]}
        assert response.status_code in documented & set(rejected), where
        assert code not in OF_THE_ROUTER, where
        assert (response.headers.get("WWW-Authenticate") == "Bearer") == (
            response.status_code == 401
        ), where

    send()
    return statuses


def test_documented_errors_are_found() -> None:
    assert DOCUMENTED["artifact_corrupt"] == {409, 422, 424}
    assert DOCUMENTED["not_found"] == {404}
    assert DOCUMENTED["malformed_body"] == DOCUMENTED["malformed_json"] == {400}
    assert DOCUMENTED["base_not_found"] == {422}
