"""An installation of real processes, with an API that a browser can open."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.cli.connection import Connection
from app.cli.errors import Unreachable
from tests.e2e.installation import Installation
from tests.servers import HOST, free_port
from tests.waiting import wait_until

API = (sys.executable, "-P", "-m", "app.cli.main", "api", "--port")
# A browser, two APIs and trainings share two cores: nobody counts as lost for being slow.
UNHURRIED: dict[str, Any] = {"lease_seconds": 60, "beat_seconds": 10, "checkpoint_seconds": 300}
END_SECONDS = 240  # a busy machine is slow; nothing is asserted about time
FINAL = ("succeeded", "failed", "cancelled")
Json = dict[str, Any]


class Service:
    """A data folder of its own and an API; workers are started by whoever wants them."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation(folder, changes={"base_dirs": str(folder), **UNHURRIED})
        self.url = self.open_api()
        self.client = Connection(self.url)

    def open_api(self, **changes: Any) -> str:
        """The URL of one more API over the same data, with these settings."""
        url = f"http://{HOST}:{(port := free_port())}"
        environment = self.installation.environment(**changes)
        process = self.installation.start([*API, str(port)], environment)
        with Connection(url) as client:

            def ready() -> bool:
                assert process.alive(), self.installation.tail()
                try:
                    return bool(client.request("GET", "/readyz"))
                except Unreachable:
                    return False

            wait_until(ready, seconds=60, what="the start of the API")
        return url

    def get(self, path: str, **params: Any) -> Any:
        return self.client.json("GET", path, params=params)

    def post(self, path: str, body: Json) -> Any:
        return self.client.json("POST", path, json=body)

    def submit(self, **body: Any) -> str:
        """The id of a new job."""
        return str(self.post("/v1/jobs", body)["id"])

    def upload(self, file: Path, name: str, **fields: str) -> Json:
        """The data set that it became."""
        with file.open("rb") as content:
            form = {"data": {"name": name, **fields}, "files": {"file": (file.name, content)}}
            made: Json = self.client.json("POST", "/v1/datasets", **form)
        return made

    def wait(self, what: str, look: Callable[[], Any]) -> Any:
        """The first true answer of `look`, which asks the API: not more often than needed."""
        deadline = time.monotonic() + END_SECONDS
        while not (answer := look()):
            in_time = time.monotonic() < deadline
            assert in_time, f"{what} did not come in time\n{self.installation.tail()}"
            time.sleep(0.2)
        return answer

    def ended(self, job_id: str) -> Json:
        """A job after its end."""

        def job() -> Json | None:
            now: Json = self.get(f"/v1/jobs/{job_id}")
            return now if now["state"] in FINAL else None

        ended: Json = self.wait(f"the end of job {job_id}", job)
        return ended

    def succeeded(self, *job_ids: str) -> None:
        for job_id in job_ids:
            job = self.ended(job_id)
            assert job["state"] == "succeeded", (job["error"], self.installation.tail())

    def close(self) -> None:
        self.client.http.close()
        self.installation.close()
