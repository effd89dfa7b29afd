"""Plotly's own JavaScript, from the installed package, under a policy without inline styles.

At its start the bundle adds two style elements, which such a policy blocks and browsers report. It
leaves that if elements with their ids are there (plotly.js#7109): a link to its rules, which are
read from the bundle here, and an empty one for those of its maps, which no page of ours draws.
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

VERSION = version("plotly")
_RULES = re.compile(r'=\{("X,X div":.*?)\};for\(', re.DOTALL)
_RULE = re.compile(r"""(?:"([XY][^"]*)"|\b(Y)):(?:"([^"]*)"|'([^']*)')""")
_MAPS = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


@cache
def script() -> str:
    """The whole bundle, 4.5 MB."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def packed() -> bytes:
    """The bundle in a third of the bytes."""
    return gzip.compress(script().encode(), 6)


@cache
def style() -> str:
    """What the bundle would put into its first style element."""
    rules = _found(_RULES)
    lines = []
    for selector, alone, plain, quoted in _RULE.findall(rules):
        named = (selector or alone).replace("X", ".js-plotly-plot .plotly")
        lines.append(f"{named.replace('Y', '.plotly-notifier')}{{{plain or quoted}}}\n")
    return "".join(lines)


@cache
def maps_style_id() -> str:
    """The id of its second one."""
    return _found(_MAPS)


def _found(pattern: re.Pattern[str]) -> str:
    match = pattern.search(script())
    if match is None:
        raise LookupError(f"plotly {VERSION} has no {pattern.pattern!r}: its bundle has changed")
    return match[1]


# MERGED app.web.assets
# Styles and scripts. They tell nothing about anybody, so they need no key.

STATIC = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ASK_FIRST = "no-cache"  # kept by the browser, but compared with ours each time
FOR_EVER = "public, max-age=31536000, immutable"  # its address holds its version

_FILES = StaticFiles(directory=STATIC)  # answers 304 where a browser has the file

router = APIRouter(include_in_schema=False)


@router.get(f"/static/plotly-{VERSION}.min.js")
def plotly_script(request: Request) -> Response:
    """Plotly's JavaScript."""
    headers = {"Cache-Control": FOR_EVER, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(packed(), headers=headers, media_type=TYPES[".js"])
    return Response(script(), headers=headers, media_type=TYPES[".js"])


@router.get(f"/static/plotly-{VERSION}.css")
def plotly_style() -> Response:
    """Plotly's rules of style."""
    return Response(style(), headers={"Cache-Control": FOR_EVER}, media_type=TYPES[".css"])


@router.get("/static/{name}")
def asset(name: str, request: Request) -> Response:
    """A file of ours."""
    path = STATIC / name
    if path.parent != STATIC or path.suffix not in TYPES or not path.is_file():
        raise HTTPException(404)
    answer = _FILES.file_response(path, path.stat(), request.scope)
    answer.headers["Cache-Control"] = ASK_FIRST
    return answer
