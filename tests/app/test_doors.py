"""No way in without a key, and none further than its scopes, for every route there is."""

import re
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.security import SecurityScopes
from starlette.testclient import TestClient

from app.auth import service
from app.auth.scopes import ALL_SCOPES
from app.main import create_app
from app.settings import Settings
from app.web import assets, documentation

PUBLIC = {"/livez", "/readyz", "/health", "/ping"}
# Of the page: they tell nothing, or are how one signs in.
FRAME = {"/sign-in", "/sign-out"} | {
    context.path or ""
    for each in (assets.router, documentation.router)
    for context in iter_route_contexts(each.routes)
}
DOCUMENTATION = {"/docs", "/docs/{name}", "/openapi.json"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO")

NewKey = Callable[..., service.NewKey]
Way = tuple[str, str, list[str]]


def routes(app: FastAPI) -> Iterator[Way]:
    """(method, path, scopes) of every route, as the router holds it."""
    for context in iter_route_contexts(app.router.routes):
        scopes: list[str] = []
        for dependency in context.dependencies:
            scopes += SecurityScopes(getattr(dependency, "scopes", None)).scopes
        for method in context.methods or {"GET"}:
            yield method, context.path or "", scopes


def filled(path: str) -> str:
    """An address of the route: ids that are not there."""
    return re.sub(r"\{\w*id\}", str(uuid4()), re.sub(r"\{(?!\w*id\})[^}]*\}", "1", path))


@pytest.fixture
def ways(locked: Settings) -> list[Way]:
    return list(routes(create_app(locked)))


def test_the_walk_sees_every_domain(ways: list[Way]) -> None:
    paths = {path for _, path, _ in ways}
    assert paths > PUBLIC | DOCUMENTATION
    for start in (
        "/v1/jobs",
        "/v1/datasets",
        "/v1/artifacts",
        "/v1/models",
        "/predict",
        "/models/",
    ):
        assert any(path.startswith(start) for path in paths), start
    assert len(ways) > 25


def test_every_route_is_closed_but_for_the_list(locked_client: TestClient, ways: list[Way]) -> None:
    open_ways = set()
    for path in {path for _, path, _ in ways}:
        for method in METHODS:
            answer = locked_client.request(method, filled(path))
            if answer.status_code != 401:
                open_ways.add((method, path))
    signing = {("POST", "/sign-in"), ("POST", "/sign-out")}
    gets = PUBLIC | FRAME - {"/sign-out"}
    assert open_ways == {("GET", path) for path in gets} | signing


@pytest.mark.parametrize(
    "path",
    [
        "//v1/jobs",
        "/v1//jobs",
        "/v1/jobs/",
        "/v1/jobs/.",
        "/v1/jobs/..",
        "/v1/./jobs",
        "/v1/%6aobs",
        "/v1/jobs%2f",
        "/v1/jobs/%2e",
        "/v1/jobs/%2e%2e/jobs",
        "/livez/",
        "/livez/../v1/jobs",
        "/livez%2f..%2fv1/jobs",
        "/livez;/v1/jobs",
        "/LIVEZ",
        "/v1/jobs?/livez",
        "/nothing",
        "/models/x",
        "/",
    ],
)
def test_no_spelling_of_a_path_opens_a_door(locked_client: TestClient, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        request = locked_client.build_request(method, "/")
        request.url = request.url.copy_with(raw_path=path.encode())
        assert locked_client.send(request).status_code in {400, 401}


@pytest.mark.parametrize("host", ["x/livez?", "localhost/livez?x=", "evil.example", "testserver@x"])
def test_no_host_opens_a_door(locked_client: TestClient, host: str) -> None:
    answer = locked_client.get("/v1/jobs", headers={"Host": host})
    assert answer.status_code in {400, 401}


def test_every_route_but_the_public_ones_and_the_documentation_declares_a_scope(
    ways: list[Way],
) -> None:
    for method, path, scopes in ways:
        if path in PUBLIC | FRAME | DOCUMENTATION:
            assert scopes == [], path
        else:
            assert scopes, (method, path)
            assert set(scopes) <= set(ALL_SCOPES)


def test_openapi_tells_the_same_scopes(locked: Settings, ways: list[Way]) -> None:
    described = create_app(locked).openapi()["paths"]
    for method, path, scopes in ways:
        plain = re.sub(r":\w+\}", "}", path)
        if path.startswith("/v1/"):
            assert method.lower() in described[plain], (method, path)
        if path not in DOCUMENTATION and method.lower() in described.get(plain, {}):
            shown = described[plain][method.lower()]
            assert shown["security"] == ([] if path in PUBLIC else [{"key": scopes}]), (
                method,
                path,
            )


def test_a_key_opens_exactly_the_routes_of_its_scopes(
    locked_client: TestClient, new_key: NewKey, ways: list[Way]
) -> None:
    keys = {scope: new_key(scope).text for scope in ALL_SCOPES}
    for method, path, scopes in ways:
        if not scopes:
            continue
        for scope, key in keys.items():
            answer = locked_client.request(
                method, filled(path), headers={"Authorization": f"Bearer {key}"}
            )
            told = answer.json() if answer.status_code == 403 else {}
            if [scope] == scopes:
                assert answer.status_code not in {401, 403, 405, 500}, (method, path, scope)
            else:
                assert answer.status_code == 403, (method, path, scope)
                assert told["code"] == "scope_missing"
                assert next(each for each in scopes if each != scope) in str(told)


def test_an_unknown_id_is_404_for_who_may_look(
    locked_client: TestClient, new_key: NewKey, ways: list[Way]
) -> None:
    headers = {"Authorization": f"Bearer {new_key().text}"}
    looked = 0
    for method, path, scopes in ways:
        if scopes and method in {"GET", "DELETE"} and "{" in path:
            answer = locked_client.request(method, filled(path), headers=headers)
            assert answer.status_code == 404, (method, path)
            assert answer.json()["code"].endswith("_not_found"), (method, path)
            looked += 1
    assert looked > 10


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_job_that_registers_its_model_needs_the_scope_for_models(
    locked_client: TestClient, new_key: Callable[..., service.NewKey], query: str
) -> None:
    """Else a key that may not touch models could give one a new version."""

    def send(key: service.NewKey, **more: str) -> tuple[int, str | None]:
        answer = locked_client.post(
            f"/v1/jobs{query}",
            json={"method": {"type": "baseline"}, **more},
            headers={"Authorization": f"Bearer {key.text}"},
        )
        return answer.status_code, answer.json().get("code")

    trains, admits = new_key("jobs:write"), new_key("jobs:write", "models:admin")
    taken = 200 if query else 202
    assert send(trains) == (taken, None)
    assert send(trains, register_as="sentiment") == (403, "scope_missing")
    assert send(admits, register_as="sentiment") == (taken, None)
