"""Styles and scripts. They tell nothing about anybody, so they need no key."""

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from app.web import plotly

STATIC = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ASK_FIRST = "no-cache"  # kept by the browser, but compared with ours each time
FOR_EVER = "public, max-age=31536000, immutable"  # its address holds its version

router = APIRouter(include_in_schema=False)


@router.get(f"/static/plotly-{plotly.VERSION}.min.js")
def plotly_script(request: Request) -> Response:
    """Plotly's JavaScript."""
    headers = {"Cache-Control": FOR_EVER, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(plotly.packed(), headers=headers, media_type=TYPES[".js"])
    return Response(plotly.script(), headers=headers, media_type=TYPES[".js"])


@router.get(f"/static/plotly-{plotly.VERSION}.css")
def plotly_style() -> Response:
    """Plotly's rules of style."""
    return Response(plotly.style(), headers={"Cache-Control": FOR_EVER}, media_type=TYPES[".css"])


@router.get("/static/{name}")
def asset(name: str) -> Response:
    """A file of ours."""
    path = STATIC / name
    if path.parent != STATIC or path.suffix not in TYPES or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, media_type=TYPES[path.suffix], headers={"Cache-Control": ASK_FIRST})
