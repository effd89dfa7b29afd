"""A fake hub on this host: serves folders like repositories of the Hugging Face hub.

    with HubStandIn(root) as hub:
        subprocess.run([...], env=os.environ | hub.environment(cache))

`root/models/NAME/…` and `root/datasets/NAME/…` are the repositories. NAME may contain one slash; a
symlink is a repository that has moved to its target. Requests for `org/broken` are answered with
503. Repositories whose names begin with `org/gated` give their files only to requests with `TOKEN`.
Models can be uploaded (`hf upload`); every file is taken as a regular one, not by LFS.

The libraries read their settings at import, so the client must be a separate process.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.local_server import LocalServer

BROKEN = "org/broken"
GATED = "org/gated"
TOKEN = "hf_" + "s3cret" * 6
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>.+?)/resolve/[^/]+/(?P<path>.+)")
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+(/[^/]+)??)"
    r"(/revision/[^/]+|/(?P<what>tree|paths-info|preupload|commit)/[^/]+(/(?P<path>.+))?)?"
)


class HubStandIn(LocalServer):
    """Listens on a free port of 127.0.0.1 inside a `with` block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []  # "GET /path" in request order
        super().__init__(_handler(self))

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def environment(self, cache: Path) -> dict[str, str]:
        """Return environment variables for a process that uses this hub and caches in `cache`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_DATASETS_CACHE": str(cache / "datasets"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
        }


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class HubRequestHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond()

        def do_HEAD(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode()
            url = urlsplit(self.path)
            path = unquote(url.path)
            hub.requests.append(f"{self.command} {path}")
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if BROKEN in path:
                status, headers, content = 503, dict[str, str](), b""
            elif GATED in path and "/resolve/" in path and token != TOKEN:
                status, headers, content = 403 if token else 401, {"X-Error-Code": "GatedRepo"}, b""
            else:
                status, headers, content = respond(hub, path, parse_qs(url.query), body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return HubRequestHandler


@dataclass(frozen=True)
class Repository:
    """A folder as a repository with a single commit."""

    folder: Path

    @property
    def files(self) -> dict[str, Path]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}

    @property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name, path in self.files.items():
            digest.update(name.encode() + path.read_bytes())
        return digest.hexdigest()

    def tree(self, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        """List a folder ("" or "name/"): its files and folders, or all files below it."""
        names = [name for name in self.files if name.startswith(folder)]
        if recursive:
            return [self.entry(name) for name in names]
        children = dict.fromkeys(folder + name[len(folder) :].split("/")[0] for name in names)
        return [
            self.entry(child)
            if child in self.files
            else {"type": "directory", "path": child, "size": 0, "oid": "0" * 40}
            for child in children
        ]

    def entry(self, name: str) -> dict[str, Any]:
        """Return a file as listed in the tree."""
        content = self.files[name].read_bytes()
        oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": oid}


HubResponse = tuple[int, dict[str, str], bytes]


def respond(hub: HubStandIn, path: str, query: dict[str, list[str]], body: str) -> HubResponse:
    """Return status, headers and content for a request."""
    if path == "/api/repos/create":
        facts = json.loads(body)
        name = f"{facts['organization']}/{facts['name']}"
        (hub.root / "models" / name).mkdir(parents=True)
        return _json({"url": f"{hub.url}/{name}", "name": name})
    if path == "/api/validate-yaml":
        return _json({"errors": [], "warnings": []})
    if match := FILE.fullmatch(path):
        kind = "datasets" if match["kind"] else "models"
        return _file(Repository(hub.root / kind / match["name"]), match["path"])
    if match := API.fullmatch(path):
        return _api(hub, match, query, body)
    return _missing("EntryNotFound")


def _file(repository: Repository, name: str) -> HubResponse:
    if not repository.folder.is_dir():
        return _missing("RepoNotFound")
    headers = {"X-Repo-Commit": repository.commit}
    if name not in repository.files:
        status, more, content = _missing("EntryNotFound")
        return status, headers | more, content
    content = repository.files[name].read_bytes()
    return 200, headers | {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, content


def _api(
    hub: HubStandIn, match: re.Match[str], query: dict[str, list[str]], body: str
) -> HubResponse:
    repository = Repository(hub.root / match["kind"] / match["name"])
    if not repository.folder.is_dir():
        return _missing("RepoNotFound")
    folder = f"{match['path']}/" if match["path"] else ""
    match match["what"]:
        case "tree":
            entries = repository.tree(folder, recursive=query.get("recursive") == ["true"])
            return _json(entries) if entries else _missing("EntryNotFound")
        case "paths-info":
            paths = parse_qs(body).get("paths", [])
            return _json([repository.entry(name) for name in paths if name in repository.files])
        case "preupload":
            files = [each["path"] for each in json.loads(body)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return _json({"files": [{"path": each, **mode} for each in files]})
        case "commit":
            _commit(repository, body)
            url = f"{hub.url}/{match['name']}/commit/{repository.commit}"
            return _json({"commitUrl": url, "commitOid": repository.commit})
        case _:
            siblings = [{"rfilename": name} for name in repository.files]
            resolved = repository.folder.resolve().relative_to(hub.root.resolve() / match["kind"])
            info = {"id": resolved.as_posix(), "sha": repository.commit, "siblings": siblings}
            return _json({**info, "tags": [], "private": False, "downloads": 0, "likes": 0})


def _commit(repository: Repository, body: str) -> None:
    """Write the files of a commit, which is a line of JSON for each."""
    for line in map(json.loads, body.splitlines()):
        if line["key"] == "file":
            path = repository.folder / line["value"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(line["value"]["content"]))


def _json(content: object) -> HubResponse:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _missing(code: str) -> HubResponse:
    return 404, {"X-Error-Code": code}, b""
