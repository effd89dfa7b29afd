"""A service of real processes, for browser tests and benchmarks."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.auth.secrets import load_or_create_pepper
from app.auth.service import create_key
from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.json_client import JsonClient
from tests.e2e.installation import Installation
from tests.servers import HOST, free_port
from tests.waiting import wait_until

API = (sys.executable, "-P", "-m", "app.cli.main", "api", "--port")
# A browser, two API processes and training share two cores: slow heartbeats are not failures.
RELAXED_TIMEOUTS: dict[str, Any] = {
    "lease_seconds": 60,
    "heartbeat_seconds": 10,
    "checkpoint_seconds": 300,
}
END_SECONDS = 240  # generous, for busy machines; tests assert nothing about time
FINAL_STATES = ("succeeded", "failed", "cancelled")
Json = dict[str, Any]


class Service:
    """A data folder and an API process. Tests start the workers that they need."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """`changes`: settings of all processes."""
        self.installation = Installation(
            folder, changes={"base_dirs": str(folder), **RELAXED_TIMEOUTS, **changes}
        )
        self.url = self.open_api()
        self.client = JsonClient(self.url)

    def open_api(self, **changes: Any) -> str:
        """Start another API process on the same data, with these settings; return its URL."""
        url = f"http://{HOST}:{(port := free_port())}"
        environment = self.installation.environment(**changes)
        process = self.installation.start([*API, str(port)], environment)
        with JsonClient(url) as client:

            def is_ready() -> bool:
                assert process.alive(), self.installation.tail()
                try:
                    return bool(client.request("GET", "/readyz"))
                except ServiceUnreachableOrFailed:
                    return False

            wait_until(is_ready, seconds=60, what="the start of the API")
        return url

    def create_key(self) -> str:
        """Return a new API key of `ada`, with all scopes."""
        with self.installation.database.write() as session:
            pepper = load_or_create_pepper(self.installation.settings)
            return create_key(session, pepper=pepper, name="ada").text

    def get(self, path: str, **params: Any) -> Any:
        return self.client.request_json("GET", path, params=params)

    def post(self, path: str, body: Json) -> Any:
        return self.client.request_json("POST", path, json=body)

    def submit(self, **body: Any) -> str:
        """Submit a job; return its id."""
        return str(self.post("/v1/jobs", body)["id"])

    def upload(self, file: Path, name: str, **fields: str) -> Json:
        """Upload a file; return the dataset."""
        with file.open("rb") as content:
            form = {"data": {"name": name, **fields}, "files": {"file": (file.name, content)}}
            dataset: Json = self.client.request_json("POST", "/v1/datasets", **form)
        return dataset

    def wait(self, what: str, poll: Callable[[], Any], *, seconds: float = END_SECONDS) -> Any:
        """Poll every 0.2 s; return the first truthy result."""
        deadline = time.monotonic() + seconds
        while not (result := poll()):
            in_time = time.monotonic() < deadline
            assert in_time, f"timed out waiting for {what}\n{self.installation.tail()}"
            time.sleep(0.2)
        return result

    def wait_for_job(self, job_id: str) -> Json:
        """Wait until a job has ended; return it."""

        def poll() -> Json | None:
            job: Json = self.get(f"/v1/jobs/{job_id}")
            return job if job["state"] in FINAL_STATES else None

        ended: Json = self.wait(f"the end of job {job_id}", poll)
        return ended

    def wait_for_success(self, *job_ids: str) -> None:
        for job_id in job_ids:
            job = self.wait_for_job(job_id)
            assert job["state"] == "succeeded", (job["error"], self.installation.tail())

    def close(self) -> None:
        self.client.http.close()
        self.installation.close()
