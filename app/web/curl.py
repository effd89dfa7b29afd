"""API calls as curl commands, and how commands address this service."""

import json
from shlex import quote

from fastapi import Request

from app.auth.middleware import SECURE_SESSION_COOKIE
from app.database.base import JsonObject
from app.http.dependencies import get_caller

_DEFAULT_ORIGIN = "http://127.0.0.1:8000"  # the command line's default


def base_url(request: Request) -> str:
    """Return the address of this service, as the browser sees it."""
    url = request.base_url
    if SECURE_SESSION_COOKIE in request.cookies:  # TLS terminates at a proxy
        url = url.replace(scheme="https")
    return str(url).rstrip("/")


def cli_url_option(request: Request) -> str:
    """Return what a command needs to reach this service: ` --url …`, or nothing."""
    origin = base_url(request)
    return "" if origin == _DEFAULT_ORIGIN else f" --url {quote(origin)}"


def curl_command(request: Request, method: str, path: str, body: JsonObject) -> str:
    """Return the API call as a curl command."""
    lines = [f"curl -X {method} {quote(base_url(request) + path)}"]
    if get_caller(request.scope).signed_in:
        lines.append('-H "Authorization: Bearer $LORAWORKS_API_KEY"')
    data = json.dumps(body, ensure_ascii=False)
    lines += ["-H 'Content-Type: application/json'", f"-d {quote(data)}"]
    return " \\\n  ".join(lines)
