"""API calls as curl commands."""

import json
from shlex import quote

from fastapi import Request

from app.database.base import JsonObject
from app.http.dependencies import get_caller


def base_url(request: Request) -> str:
    """Return the address of this service, as the browser sees it."""
    return str(request.base_url).rstrip("/")


def curl_command(request: Request, method: str, path: str, body: JsonObject) -> str:
    """Return the API call as a curl command."""
    lines = [f"curl -X {method} {quote(base_url(request) + path)}"]
    if get_caller(request.scope).signed_in:
        lines.append('-H "Authorization: Bearer $LORAWORKS_API_KEY"')
    data = json.dumps(body, ensure_ascii=False)
    lines += ["-H 'Content-Type: application/json'", f"-d {quote(data)}"]
    return " \\\n  ".join(lines)
