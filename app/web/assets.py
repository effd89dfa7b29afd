"""Styles and scripts. They tell nothing about anybody, so they need no key."""

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from app.web import plotly

STATIC = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ASK_FIRST = "no-cache"  # kept by the browser, but compared with ours each time
FOR_EVER = "public, max-age=31536000, immutable"  # its address holds its version

_FILES = StaticFiles(directory=STATIC)  # answers 304 where a browser has the file

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
def asset(name: str, request: Request) -> Response:
    """A file of ours."""
    path = STATIC / name
    if path.parent != STATIC or path.suffix not in TYPES or not path.is_file():
        raise HTTPException(404)
    answer = _FILES.file_response(path, path.stat(), request.scope)
    answer.headers["Cache-Control"] = ASK_FIRST
    return answer
