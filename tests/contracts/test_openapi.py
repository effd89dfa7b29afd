"""The OpenAPI description has what generators of clients need.

They make a function of each operation id and a class of each schema, so both are part of the API.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.main import create_app
from app.settings import Settings

OPERATION_ID = re.compile(r"([a-z]+)(_[a-z0-9]+)*")
VERBS = {
    *("cancel", "check", "compare", "create", "delete", "download", "explain", "extend", "get"),
    *("import", "list", "move", "pause", "predict", "preview", "promote", "register", "resume"),
    *("retry", "roll", "stop", "stream", "update", "upload"),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def described(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`GET /v1/jobs`, operation) of every operation."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_operation_ids_are_verbs(described: dict[str, Any]) -> None:
    for route, operation in operations(described):
        name = operation["operationId"]
        match = OPERATION_ID.fullmatch(name)
        assert match, f"{route}: name the function in snake case, not {name}"
        assert match[1] in VERBS, (
            f"{route}: generated clients get a function {name}(). Let the name of the route's "
            f"function start with a verb: {', '.join(sorted(VERBS))}; or add another to VERBS."
        )


def test_operation_ids_are_unique(app: FastAPI) -> None:
    paths: dict[str, list[str]] = {}
    for context in iter_route_contexts(app.router.routes):
        if context.include_in_schema:
            paths.setdefault(context.name or "", []).append(context.path or "")
    repeated = {name: found for name, found in paths.items() if len(found) > 1}
    assert not repeated, (
        f"{repeated}: several routes have one operation id. If they have functions of the same "
        "name, say in the name what it is about (`list_job_events`). If one function serves all "
        "of them, set include_in_schema=False for each path but one."
    )


def test_every_operation_has_a_summary_and_a_description(described: dict[str, Any]) -> None:
    for route, operation in operations(described):
        assert operation.get("summary"), f"{route}: no summary"
        assert operation.get("description"), f"{route}: give the function a docstring"


def test_pages_are_not_described(described: dict[str, Any]) -> None:
    api = ("/v1/", "/models/", "/openai/")
    others = {path for path in described["paths"] if not path.startswith(api)}
    assert others == {"/predict", "/vertex", "/info", "/livez", "/readyz", "/metrics"}, (
        "pages belong on a router with include_in_schema=False"
    )
