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

# How pydantic writes the limits of a union, which JSON Schema does not know.
NO_KEYWORDS = {"gt", "ge", "lt", "le", "min_length", "max_length", "multiple_of"}
OPERATION_ID = re.compile(r"([a-z]+)(_[a-z0-9]+)*")
VERBS = {
    *("archive", "cancel", "check", "compare", "correct", "create", "delete", "download"),
    *("explain", "extend", "forget", "get", "import", "lease", "list", "move"),
    *("pause", "predict", "preview", "promote", "rediagnose", "register", "replay"),
    *("rerank", "resume", "retry", "roll", "rotate", "send", "start", "stop"),
    *("stream", "unarchive", "update", "upload"),
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


def schemas(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, schema) of every schema, those within others too."""
    for name, schema in described["components"]["schemas"].items():
        yield from walk(name, schema)
    for route, operation in operations(described):
        for parameter in operation.get("parameters", ()):
            yield from walk(f"{route} {parameter['name']}", parameter["schema"])
        for name, content in contents(operation):
            yield from walk(f"{route} {name}", content.get("schema", {}))


def walk(where: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield where, schema
    for name, each in schema.get("properties", {}).items():
        yield from walk(f"{where}.{name}", each)
    for keyword in ("anyOf", "oneOf", "prefixItems"):
        for each in schema.get(keyword, ()):
            yield from walk(where, each)
    for keyword in ("items", "additionalProperties"):
        if isinstance(each := schema.get(keyword), dict):
            yield from walk(f"{where}[]", each)


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`200 application/json`, content) of the body and of every response."""
    bodies = {"body": operation.get("requestBody", {}), **operation["responses"]}
    for name, body in bodies.items():
        for media_type, content in body.get("content", {}).items():
            yield f"{name} {media_type}", content


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
    api = ("/v1/", "/models/", "/openai/", "/mistral/")
    others = {path for path in described["paths"] if not path.startswith(api)}
    predicting = {"/predict", "/rerank", "/vertex", "/info"}
    assert others == predicting | {"/livez", "/readyz", "/metrics"}, (
        "pages belong on a router with include_in_schema=False"
    )


def test_requests_and_responses_share_no_schema(described: dict[str, Any]) -> None:
    """FastAPI then makes two schemas, such as `Parameters-Input` and `Parameters-Output`."""
    for name in described["components"]["schemas"]:
        assert re.fullmatch(r"[A-Z]\w*", name, re.ASCII), (
            f"{name}: give the body and the response classes of their own, such as JobCreate and "
            "JobView, or type the field of the response as dict[str, Any]"
        )


def test_enums_do_not_differ_in_case_only(described: dict[str, Any]) -> None:
    for where, schema in schemas(described):
        values = [str(each).lower() for each in schema.get("enum", ())]
        assert len(values) == len(set(values)), (
            f"{where}: {schema['enum']} become constants of one name. Describe one spelling, and "
            "accept the others with a BeforeValidator."
        )


def test_unions_have_no_object_as_default(described: dict[str, Any]) -> None:
    for where, schema in schemas(described):
        if {"anyOf", "oneOf"} & schema.keys():
            assert not isinstance(schema.get("default"), dict), (
                f"{where}: openapi-python-client leaves out classes with such a field. Use "
                "Field(default_factory=…), and name the default in its description."
            )


def test_limits_are_keywords_of_json_schema(described: dict[str, Any]) -> None:
    for where, schema in schemas(described):
        lost = schema.keys() & NO_KEYWORDS
        assert not lost, (
            f"{where}: generators ignore {lost}. Put the limits of a union on its members: "
            "Annotated[int, Field(ge=1)] | None"
        )


def test_objects_have_typed_fields(described: dict[str, Any]) -> None:
    for where, schema in schemas(described):
        if schema.get("type") == "object":
            assert {"properties", "additionalProperties"} & schema.keys(), (
                f"{where}: an object without fields. A model names them; dict[str, int] or, as a "
                "last resort, dict[str, Any] says that any may come."
            )
        if schema.get("type") == "array":
            assert {"items", "prefixItems"} & schema.keys(), f"{where}: a list of nothing"


def test_texts_in_parameters_are_limited(described: dict[str, Any]) -> None:
    for route, operation in operations(described):
        for parameter in operation.get("parameters", ()):
            where = f"{route}: {parameter['name']}"
            for _, schema in walk(where, parameter["schema"]):
                if schema.get("type") == "string":
                    limits = {"pattern", "format", "enum", "const", "maxLength"}
                    assert limits & schema.keys(), (
                        f"{where}: any text, of any length. Use a type with a limit, such as "
                        "DatasetRef, ModelRefParam, PageCursor, Slug or CleanText(200)."
                    )


def test_parameters_are_described(described: dict[str, Any]) -> None:
    for route, operation in operations(described):
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description") or parameter["in"] == "path", (
                f"{route}: what does {parameter['name']} mean? Query(description=…)"
            )


def test_form_fields_are_never_null(described: dict[str, Any]) -> None:
    forms = 0
    for route, operation in operations(described):
        content = operation.get("requestBody", {}).get("content", {})
        for name, schema in walk(route, content.get("multipart/form-data", {}).get("schema", {})):
            forms += "properties" in schema
            assert schema.get("type") != "null", f"{name}: a form omits a field, it has no null"
    assert forms >= 3


def test_bodies_and_responses_have_schemas(described: dict[str, Any]) -> None:
    for route, operation in operations(described):
        for name, content in contents(operation):
            if "event-stream" not in name:
                assert content.get("schema"), f"{route}: {name} may be anything; name a model"


def test_every_error_has_a_named_schema(described: dict[str, Any]) -> None:
    for route, operation in operations(described):
        for status in ("4XX", "5XX"):
            ((_, content),) = operation["responses"][status]["content"].items()
            assert "$ref" in content["schema"], (
                f"{route}: generators make a class of the {status} for each route. Give the schema "
                "a title."
            )
