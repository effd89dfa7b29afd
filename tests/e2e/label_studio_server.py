"""A Label Studio server in its own environment, and the calls of its REST API that tests need."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.servers import HOST, free_port
from tests.waiting import wait_until

COMMAND = Path(__file__).parents[2] / ".venv-label-studio" / "bin" / "label-studio"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
START_SECONDS = 900  # 30 on an idle machine: it migrates a new database

Json = dict[str, Any]


class LabelStudio:
    """The REST API of a server."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Token {TOKEN}"}, timeout=120
        )

    def close(self) -> None:
        self._http.close()

    def is_up(self) -> bool:
        try:
            return self._http.get("/health").status_code == 200
        except httpx2.TransportError:
            return False

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Return the JSON of a response that has to be a success."""
        response = self._http.request(method, path, **arguments)
        assert response.is_success, (method, path, response.status_code, response.text[:2000])
        return response.json()

    def create_project(self, title: str, config: str) -> int:
        body = {"title": title, "label_config": config}
        project: int = self.call("POST", "/api/projects/", json=body)["id"]
        return project

    def import_tasks(self, project: int, tasks: list[Json]) -> Json:
        """Import tasks as a file of them is imported."""
        imported: Json = self.call("POST", f"/api/projects/{project}/import", json=tasks)
        return imported

    def tasks(self, project: int) -> list[Json]:
        """Return all tasks with their predictions, in the order of their import."""
        query = {"project": project, "fields": "all", "page_size": 1000}
        found: list[Json] = self.call("GET", "/api/tasks", params=query)["tasks"]
        return sorted(found, key=lambda task: int(task["id"]))

    def annotate(self, task: int, results: list[Json], **fields: Any) -> None:
        self.call("POST", f"/api/tasks/{task}/annotations/", json={"result": results, **fields})

    def export(self, project: int, form: str) -> bytes:
        """Return the export that the page offers: `JSON` or `JSON_MIN`."""
        query = {"exportType": form, "download_all_tasks": "true"}
        response = self._http.get(f"/api/projects/{project}/export", params=query)
        assert response.is_success, response.text[:2000]
        return response.content


@contextmanager
def label_studio(folder: Path) -> Iterator[LabelStudio]:
    """Run a server on a free port, with its data in a folder."""
    assert COMMAND.exists(), "run `make .venv-label-studio/.made` first"
    port = free_port()
    environment = {
        **os.environ,
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": "tests@example.com",
        "LABEL_STUDIO_PASSWORD": "a-password-of-tests",
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    folder.mkdir()
    with (folder / "log").open("wb") as log, subprocess.Popen(
        [COMMAND, "start", "--no-browser", "--internal-host", HOST, "--port", str(port)],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder,
    ) as process:  # fmt: skip
        server = LabelStudio(f"http://{HOST}:{port}")
        try:
            wait_until(
                lambda: server.is_up() or process.poll() is not None,
                seconds=START_SECONDS,
                what="the start of Label Studio",
                pause=0.5,
            )
            assert process.poll() is None, (folder / "log").read_text()[-4000:]
            yield server
        finally:
            server.close()
            process.terminate()
            process.wait(timeout=60)
