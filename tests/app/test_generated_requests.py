"""Generated requests to every operation: no 5xx, and only responses that the OpenAPI describes."""

import re
from collections.abc import Callable, Iterator, Mapping
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

from app.main import create_app
from app.settings import Settings
from tests.app.jobs.conftest import submit, worker
from tests.app.jobs.test_misclassified import finish
from tests.app.serving.conftest import publish
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


@pytest.fixture(params=["off", "on"])
def sender(
    request: pytest.FixtureRequest,
    client: TestClient,
    auth_settings: Settings,
    new_key: Callable[..., Any],
) -> Iterator[TestClient]:
    """A client without keys, or one with a key that has all scopes, of an app with auth on."""
    if request.param == "off":
        yield client
        return
    headers = {"Authorization": f"Bearer {new_key().text}"}
    with TestClient(create_app(auth_settings), headers=headers) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_generated_requests(app: FastAPI, sender: TestClient, examples: Mapping[str, str]) -> None:
    described: Any = schemathesis.openapi.from_dict(app.openapi())
    described.config.generation.with_security_parameters = False  # the client has its own key
    operations = [each.ok() for each in described.get_all_operations()]
    failures, succeeded = {}, 0
    for operation in sorted(operations, key=lambda each: ORDER.index(each.method.upper())):
        if operation.definition.raw["operationId"] not in ENDLESS:
            try:
                succeeded += _send_requests(sender, operation, {**OTHER_EXAMPLES, **examples})
            except Exception as error:
                failures[operation.label] = str(error)
    assert not failures, "\n".join(failures.values())
    assert succeeded > len(operations) / 3  # many need what an earlier request took or changed


def _send_requests(sender: TestClient, operation: Any, examples: Mapping[str, str]) -> bool:
    """Send valid requests about rows that exist, valid ones about any, and invalid ones.

    Returns whether any succeeded.
    """
    names = re.findall(r"\{(\w+)\}", operation.path)
    existing = {name: example_of(operation.path, name, examples) for name in names}
    succeeded = []
    cases = strategies.one_of(
        operation.as_strategy(path_parameters=existing),
        operation.as_strategy(),
        operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=existing),
    )

    @settings(
        max_examples=REQUESTS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def send(case: Case[Any]) -> None:
        kwargs = case.as_transport_kwargs(base_url="http://testserver")
        sent: Any = requests.Request(**kwargs).prepare()
        response = sender.request(
            sent.method, sent.url, content=sent.body, headers=dict(sent.headers)
        )
        case.validate_response(response, checks=CHECKS)
        succeeded.append(response.is_success)

    send()
    return any(succeeded)
