"""Static files, and Plotly's JavaScript from the installed package. They need no API key.

The content security policy forbids inline styles. At startup the Plotly bundle adds two style
elements, which the policy blocks and browsers report. The bundle skips that if elements with their
ids exist (plotly.js#7109): pages contain a link to the first element's rules, extracted from the
bundle here, and an empty element for the second one, which styles maps that no page draws.
"""

import gzip
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

STATIC_DIR = Path(__file__).with_name("static")
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Values of Cache-Control.
_REVALIDATE = "no-cache"
_IMMUTABLE = "public, max-age=31536000, immutable"  # for URLs that contain a version

PLOTLY_VERSION = version("plotly")
_STYLE_RULES = re.compile(r'=\{("X,X div":.*?)\};for\(', re.DOTALL)
_STYLE_RULE = re.compile(r"""(?:"([XY][^"]*)"|\b(Y)):(?:"([^"]*)"|'([^']*)')""")
_MAP_STYLE_ID = re.compile(r'getElementById\("([0-9a-f]{64})"\)')

_static_files = StaticFiles(directory=STATIC_DIR)  # answers 304 to a matching If-None-Match

router = APIRouter(include_in_schema=False)


@router.get(f"/static/plotly-{PLOTLY_VERSION}.min.js")
def serve_plotly_js(request: Request) -> Response:
    """Serve Plotly's JavaScript, compressed if the client accepts gzip."""
    headers = {"Cache-Control": _IMMUTABLE, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(gzipped_plotly_script(), headers=headers, media_type=MEDIA_TYPES[".js"])
    return Response(plotly_script_text(), headers=headers, media_type=MEDIA_TYPES[".js"])


@router.get(f"/static/plotly-{PLOTLY_VERSION}.css")
def serve_plotly_css() -> Response:
    """Serve Plotly's style rules."""
    return Response(
        plotly_style_text(), headers={"Cache-Control": _IMMUTABLE}, media_type=MEDIA_TYPES[".css"]
    )


@router.get("/static/{name}")
def serve_static_file(name: str, request: Request) -> Response:
    """Serve a file of `STATIC_DIR`."""
    path = STATIC_DIR / name
    if path.parent != STATIC_DIR or path.suffix not in MEDIA_TYPES or not path.is_file():
        raise HTTPException(404)
    response = _static_files.file_response(path, path.stat(), request.scope)
    response.headers["Cache-Control"] = _REVALIDATE
    return response


@cache
def plotly_script_text() -> str:
    """Return the bundle, 4.5 MB."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def gzipped_plotly_script() -> bytes:
    """Return the bundle compressed to a third of its size."""
    return gzip.compress(plotly_script_text().encode(), 6)


@cache
def plotly_style_text() -> str:
    """Return the CSS that the bundle would put into its first style element."""
    rules = _search_bundle(_STYLE_RULES)
    lines = []
    for selector, notifier, declarations, quoted in _STYLE_RULE.findall(rules):
        expanded = (selector or notifier).replace("X", ".js-plotly-plot .plotly")
        lines.append(f"{expanded.replace('Y', '.plotly-notifier')}{{{declarations or quoted}}}\n")
    return "".join(lines)


@cache
def plotly_map_style_id() -> str:
    """Return the id of the bundle's second style element."""
    return _search_bundle(_MAP_STYLE_ID)


def _search_bundle(pattern: re.Pattern[str]) -> str:
    match = pattern.search(plotly_script_text())
    if match is None:
        raise LookupError(
            f"The Plotly {PLOTLY_VERSION} bundle has changed: no match for {pattern.pattern!r}"
        )
    return match[1]
