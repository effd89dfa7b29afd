"""Every route requires an API key with the right scope, except the public ones."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.security import SecurityScopes
from starlette.testclient import TestClient

from app.auth import service
from app.auth.middleware import check_any_scope
from app.auth.tables import ALL_SCOPES
from app.main import create_app
from app.settings import Settings
from app.web import assets, documentation

PUBLIC = {"/livez", "/readyz", "/health", "/ping"}
# Public parts of the page: static files, and the sign-in itself.
FRAME = {"/sign-in", "/sign-out"} | {
    context.path or ""
    for each in (assets.router, documentation.router)
    for context in iter_route_contexts(each.routes)
}
DOCUMENTATION = {"/docs", "/docs/{name}", "/openapi.json"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO")

NewKey = Callable[..., service.CreatedKey]
RouteSpec = tuple[str, str, list[str], bool]


def routes(app: FastAPI) -> Iterator[RouteSpec]:
    """Yield (method, path, scopes, whether one of them suffices) of every route of the router."""
    for context in iter_route_contexts(app.router.routes):
        scopes: list[str] = []
        for dependency in context.dependencies:
            scopes += SecurityScopes(getattr(dependency, "scopes", None)).scopes
        any_of = check_any_scope in [each.dependency for each in context.dependencies]
        for method in context.methods or {"GET"}:
            yield method, context.path or "", scopes, any_of


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The object with the code, in whichever format the route has."""
    body: dict[str, Any] = response.json()
    return body["error"] if isinstance(body.get("error"), dict) else body


def fill_path(path: str) -> str:
    """Return a URL of the route with unknown ids."""
    return re.sub(r"\{\w*id\}", str(uuid4()), re.sub(r"\{(?!\w*id\})[^}]*\}", "1", path))


@pytest.fixture
def all_routes(auth_settings: Settings) -> list[RouteSpec]:
    return list(routes(create_app(auth_settings)))


def test_walk_covers_every_domain(all_routes: list[RouteSpec]) -> None:
    paths = {path for _, path, _, _ in all_routes}
    assert paths > PUBLIC | DOCUMENTATION
    for start in (
        "/v1/jobs",
        "/v1/datasets",
        "/v1/artifacts",
        "/v1/models",
        "/predict",
        "/models/",
        "/openai/v1/",
        "/mistral/v1/",
    ):
        assert any(path.startswith(start) for path in paths), start
    assert len(all_routes) > 25


@pytest.mark.parametrize("others", [1, pytest.param(len(METHODS), marks=pytest.mark.slow)])
def test_all_routes_but_the_public_ones_require_authentication(
    anonymous_client: TestClient, all_routes: list[RouteSpec], others: int
) -> None:
    """Of methods that a route does not have, some are tried: of each route another one."""
    own: dict[str, set[str]] = {}
    for method, path, _, _ in all_routes:
        own.setdefault(path, set()).add(method)
    public_routes = set()
    for number, (path, methods) in enumerate(own.items()):
        more = [METHODS[(number + i) % len(METHODS)] for i in range(others)]
        for method in METHODS if path in PUBLIC | FRAME else sorted(methods | set(more)):
            response = anonymous_client.request(method, fill_path(path))
            # Signing in without a key is a 401 of the route itself, which asks for no header.
            if response.status_code != 401 or "WWW-Authenticate" not in response.headers:
                public_routes.add((method, path))
    signing = {("POST", "/sign-in"), ("POST", "/sign-out")}
    gets = PUBLIC | FRAME - {"/sign-out"}
    assert public_routes == {("GET", path) for path in gets} | signing


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
def test_no_path_spelling_bypasses_authentication(anonymous_client: TestClient, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        request = anonymous_client.build_request(method, "/")
        request.url = request.url.copy_with(raw_path=path.encode())
        assert anonymous_client.send(request).status_code in {400, 401}


@pytest.mark.parametrize("host", ["x/livez?", "localhost/livez?x=", "evil.example", "testserver@x"])
def test_no_host_header_bypasses_authentication(anonymous_client: TestClient, host: str) -> None:
    response = anonymous_client.get("/v1/jobs", headers={"Host": host})
    assert response.status_code in {400, 401}


def test_all_other_routes_declare_a_scope(
    all_routes: list[RouteSpec],
) -> None:
    for method, path, scopes, _ in all_routes:
        if path in PUBLIC | FRAME | DOCUMENTATION:
            assert scopes == [], path
        else:
            assert scopes, (method, path)
            assert set(scopes) <= set(ALL_SCOPES)


def test_every_scope_is_required_by_a_route(all_routes: list[RouteSpec]) -> None:
    """Otherwise keys would already have it when a route begins to ask for it."""
    assert {scope for _, _, scopes, _ in all_routes for scope in scopes} == set(ALL_SCOPES)


def test_openapi_lists_the_same_scopes(
    auth_settings: Settings, all_routes: list[RouteSpec]
) -> None:
    described = create_app(auth_settings).openapi()["paths"]
    for method, path, scopes, any_of in all_routes:
        plain = re.sub(r":\w+\}", "}", path)
        if path.startswith(("/v1/", "/openai/", "/mistral/")):
            assert method.lower() in described[plain], (method, path)
        if path not in DOCUMENTATION and method.lower() in described.get(plain, {}):
            shown = described[plain][method.lower()]
            required = [{"key": [scope]} for scope in scopes] if any_of else [{"key": scopes}]
            assert shown["security"] == ([] if path in PUBLIC else required), (
                method,
                path,
            )


@pytest.mark.parametrize("others", [2, pytest.param(len(ALL_SCOPES), marks=pytest.mark.slow)])
def test_api_key_admits_to_exactly_the_routes_of_its_scopes(
    anonymous_client: TestClient, new_key: NewKey, all_routes: list[RouteSpec], others: int
) -> None:
    """Of the scopes that do not suffice, some are tried: at each route other ones."""
    keys: dict[str, str] = {scope: new_key(scope).text for scope in ALL_SCOPES}
    for number, (method, path, scopes, any_of) in enumerate(all_routes):
        if not scopes:
            continue
        more = [list(keys)[(number + i) % len(keys)] for i in range(others)]
        for scope in sorted({*scopes, *more}):
            key = keys[scope]
            response = anonymous_client.request(
                method, fill_path(path), headers={"Authorization": f"Bearer {key}"}
            )
            body = error_of(response) if response.status_code == 403 else {}
            if [scope] == scopes or (any_of and scope in scopes):
                assert response.status_code not in {401, 403, 405, 500}, (method, path, scope)
            else:
                assert response.status_code == 403, (method, path, scope)
                assert body["code"] == "scope_missing"
                assert next(each for each in scopes if each != scope) in str(body)


def test_unknown_id_is_404_with_the_required_scope(
    anonymous_client: TestClient, new_key: NewKey, all_routes: list[RouteSpec]
) -> None:
    headers = {"Authorization": f"Bearer {new_key().text}"}
    looked = 0
    for method, path, scopes, _ in all_routes:
        if scopes and method in {"GET", "DELETE"} and "{" in path:
            response = anonymous_client.request(method, fill_path(path), headers=headers)
            assert response.status_code == 404, (method, path)
            assert error_of(response)["code"].endswith("_not_found"), (method, path)
            looked += 1
    assert looked > 10


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_job_that_registers_its_model_requires_the_models_scope(
    anonymous_client: TestClient, new_key: Callable[..., service.CreatedKey], query: str
) -> None:
    """Otherwise a key without that scope could add a version to a model."""

    def send(key: service.CreatedKey, **more: str) -> tuple[int, str | None]:
        response = anonymous_client.post(
            f"/v1/jobs{query}",
            json={"method": {"type": "baseline"}, **more},
            headers={"Authorization": f"Bearer {key.text}"},
        )
        return response.status_code, response.json().get("code")

    trains, admits = new_key("jobs:write"), new_key("jobs:write", "models:admin")
    taken = 200 if query else 202
    assert send(trains) == (taken, None)
    assert send(trains, register_as="sentiment") == (403, "scope_missing")
    assert send(admits, register_as="sentiment") == (taken, None)


def test_retry_of_a_job_that_registers_its_model_requires_the_models_scope(
    anonymous_client: TestClient, new_key: Callable[..., service.CreatedKey]
) -> None:
    """A retry copies `register_as`."""

    def post(path: str, key: service.CreatedKey, **body: object) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key.text}"}
        response = anonymous_client.post(f"/v1/jobs{path}", json=body or None, headers=headers)
        return response.status_code, response.json()

    trains, admits = new_key("jobs:write"), new_key("jobs:write", "models:admin")
    _, job = post("", admits, method={"type": "linear"}, register_as="sentiment")
    post(f"/{job['id']}/cancel", trains)
    status, problem = post(f"/{job['id']}/retry", trains)
    assert (status, problem["code"]) == (403, "scope_missing")
    status, retry = post(f"/{job['id']}/retry", admits)
    assert (status, retry["register_as"]) == (202, "sentiment")
