"""The OpenAPI description and Swagger UI, without any file from other servers.

Swagger UI comes from an installed package. Its initializer is a separate file because the content
security policy forbids inline scripts.
"""

from collections.abc import Callable
from importlib.resources import files
from threading import Lock
from typing import Any

import fastapi_swagger
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

router = APIRouter(include_in_schema=False)

SWAGGER_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>loraworks API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
SWAGGER_INITIALIZER = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
# Swagger UI's style sheet has icons as data URLs.
DOCS_CONTENT_SECURITY_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
ASSET_MEDIA_TYPES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


class FastAPIWithErrorSchemas(FastAPI):
    """FastAPI, with error schemas in its description as components.

    Generators would otherwise make a class of them for each route, since FastAPI has a component
    only for what responds with `application/json`. The argument `any_scope` is the dependency that
    is satisfied by one of its scopes.
    """

    def __init__(self, *, any_scope: Callable[..., Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.any_scope = any_scope
        self._openapi_lock = Lock()  # several threads may ask first

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description, with titled schemas of responses as components."""
        with self._openapi_lock:
            if self.openapi_schema is None:
                description = super().openapi()
                self.openapi_schema = None  # until it is complete
                self.openapi_schema = self._describe(description)
            return self.openapi_schema

    def _describe(self, description: dict[str, Any]) -> dict[str, Any]:
        components: dict[str, Any] = description["components"]["schemas"]
        for methods in description["paths"].values():
            for operation in methods.values():
                for response in operation["responses"].values():
                    for content in response.get("content", {}).values():
                        _use_component(content, components)
        description["components"]["schemas"] = dict(sorted(components.items()))
        self._list_alternative_scopes(description["paths"])
        return description

    def _list_alternative_scopes(self, paths: dict[str, Any]) -> None:
        """List scopes of which one suffices as alternatives; FastAPI lists them as all required."""
        for context in iter_route_contexts(self.router.routes):
            for each in context.dependencies:
                if each.dependency is self.any_scope and context.path in paths:
                    for method in context.methods or ():
                        operation = paths[context.path][method.lower()]
                        operation["security"] = [{"key": [scope]} for scope in each.scopes]


def _use_component(content: dict[str, Any], components: dict[str, Any]) -> None:
    """Move the schema of an object that has a title to the components."""
    schema = content.get("schema", {})
    if schema.get("type") == "object" and "properties" in schema and "title" in schema:
        components[schema["title"]] = schema
        content["schema"] = {"$ref": f"#/components/schemas/{schema['title']}"}


def operation_id(route: APIRoute) -> str:
    """Return the name of the route's function, as which generated clients have a function too.

    So the names of route functions are part of the API: verbs, unique among all domains.
    """
    return route.name


@router.get("/openapi.json")
def get_openapi_json(request: Request) -> JSONResponse:
    """Return the OpenAPI description."""
    description: dict[str, Any] = request.app.openapi()
    return JSONResponse(description)


@router.get("/docs")
def get_docs_page() -> HTMLResponse:
    """Return the Swagger UI page."""
    return HTMLResponse(
        SWAGGER_PAGE, headers={"Content-Security-Policy": DOCS_CONTENT_SECURITY_POLICY}
    )


@router.get("/docs/{name}")
def get_docs_asset(name: str) -> Response:
    """Return a script, style sheet or icon of Swagger UI."""
    if name == "start.js":
        return Response(SWAGGER_INITIALIZER, media_type="text/javascript")
    if name not in ASSET_MEDIA_TYPES:
        raise HTTPException(404)
    content = (files(fastapi_swagger) / "resources" / name).read_bytes()
    return Response(
        content, media_type=ASSET_MEDIA_TYPES[name], headers={"Cache-Control": "max-age=86400"}
    )
