"""The description of the API for people and programs, without any file from elsewhere.

Swagger UI comes from an installed package. Its start is a file of its own, since the content
security policy allows no script inside the page.
"""

from importlib.resources import files
from typing import Any

import fastapi_swagger
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

router = APIRouter(include_in_schema=False)

PAGE = """<!doctype html>
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
START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
# Swagger UI draws its icons from data URLs in its style sheet.
CSP = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
TYPES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


@router.get("/openapi.json")
def openapi(request: Request) -> JSONResponse:
    """The OpenAPI description."""
    described: dict[str, Any] = request.app.openapi()
    return JSONResponse(described)


@router.get("/docs")
def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": CSP})


@router.get("/docs/{name}")
def asset(name: str) -> Response:
    """A file of the page."""
    if name == "start.js":
        return Response(START, media_type="text/javascript")
    if name not in TYPES:
        raise HTTPException(404)
    content = (files(fastapi_swagger) / "resources" / name).read_bytes()
    return Response(content, media_type=TYPES[name], headers={"Cache-Control": "max-age=86400"})
