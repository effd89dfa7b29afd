"""A client that does everything else than train: uploads, sweeps, predictions, exports, pages, gc.

It removes what it has made, as far as there is a route for it, so that what grows is a leak. While
something is broken its requests fail; it goes on with the next one.
"""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from tests.chaos.annotators import NAME as LABELING_PROJECT
from tests.chaos.scene import BODIES, OPTIM, TEXTS, Scene

PAGES = ("/", "/sweeps", "/datasets", "/models", "/labeling", "/predictions", "/metrics")
LONGEST_PAUSE = 2.0  # seconds between two operations
TIMEOUT = 30.0
GC_SECONDS = 120.0
MODEL = "honest:1"  # that the scene has registered
ROWS = 40


class Load(threading.Thread):
    """One operation after the other, drawn at random, until `stop`."""

    def __init__(self, scene: Scene, draw: random.Random) -> None:
        super().__init__(name="load", daemon=True)
        self.done: Counter[str] = Counter()  # operations that succeeded
        self.internal_errors = 0  # answers with status 500
        self.problem = ""
        self._scene, self._draw = scene, draw
        self._stopped = threading.Event()
        self._number = 0

    def stop(self) -> None:
        """End after the current operation."""
        self._stopped.set()
        self.join(2 * GC_SECONDS)

    def run(self) -> None:
        operations: list[Callable[[], None]] = [
            *5 * [self._predict], *3 * [self._show_a_page], *2 * [self._upload],
            *2 * [self._run_predictions], self._sweep, self._export_a_model,
            self._export_labels, self._collect_garbage,
        ]  # fmt: skip
        while not self._stopped.is_set():
            operation = self._draw.choice(operations)
            try:
                operation()
                self.done[operation.__name__.strip("_")] += 1
            except (httpx2.HTTPError, subprocess.SubprocessError):
                time.sleep(1)
            except Exception as error:
                self.problem = repr(error)
                return
            self._stopped.wait(self._draw.uniform(0, LONGEST_PAUSE))

    def _predict(self) -> None:
        self._send("POST", "/predict", json={"inputs": TEXTS, "model": MODEL})

    def _show_a_page(self) -> None:
        self._send("GET", self._draw.choice(PAGES))

    def _upload(self) -> None:
        """Upload a file, read it and delete it."""
        made = self._upload_file("soak", "text,label\n", "a {label} film {number},{label}\n")
        self._send("GET", f"/v1/datasets/{made}/rows")
        self._send("DELETE", f"/v1/datasets/{made}")

    def _run_predictions(self) -> None:
        """Start a run; read and delete those that have ended."""
        texts = self._upload_file("soak-texts", "text\n", "a film {number}\n", purpose="predict")
        self._send("POST", "/v1/predictions", json={"dataset": texts, "model": MODEL})
        for run in self._list("/v1/predictions?state=succeeded"):
            self._send("GET", f"/v1/predictions/{run['id']}/results")
            self._send("DELETE", f"/v1/predictions/{run['id']}")
            self._send("DELETE", f"/v1/datasets/{run['dataset']}")

    def _sweep(self) -> None:
        """Start a sweep; read the report of those that have ended, and delete them."""
        self._number += 2
        job = {
            "base": str(self._scene.installation.base), "data": {"source": "reviews:1"},
            "optim": OPTIM, "runtime": {"device": "cpu", "threads": 1}, **BODIES["lora"],
        }  # fmt: skip
        seeds = {"runtime.seed": [self._number, self._number + 1]}
        self._send("POST", "/v1/sweeps", json={"job": job, "space": seeds, "max_parallel_jobs": 1})
        for sweep in self._list("/v1/sweeps?state=finished"):
            self._send("GET", f"/v1/sweeps/{sweep['id']}/report")
            self._send("DELETE", f"/v1/sweeps/{sweep['id']}")

    def _export_a_model(self) -> None:
        jobs = self._list("/v1/jobs?state=succeeded&limit=10")
        for job in [each for each in jobs if each["artifact_id"]][:1]:
            self._send("GET", f"/v1/artifacts/{job['artifact_id']}/archive")

    def _export_labels(self) -> None:
        """Store the labels so far as a dataset, and delete it."""
        path = f"/v1/labeling/{LABELING_PROJECT}/dataset"
        made = self._send("POST", path, json={"name": "soak-labels"}).json()
        self._send("DELETE", f"/v1/datasets/{made['id']}")

    def _collect_garbage(self) -> None:
        program = str(Path(sys.executable).with_name("loraworks"))
        environment = self._scene.installation.environment()
        subprocess.run(
            [program, "gc"], env=environment, check=True, capture_output=True, timeout=GC_SECONDS
        )

    def _upload_file(self, name: str, header: str, line: str, **form: str) -> str:
        self._number += 1
        rows = (
            line.format(number=f"{self._number} {i}", label=("bad", "good")[i % 2])
            for i in range(ROWS)
        )
        files = {"file": ("file.csv", header + "".join(rows))}
        answer = self._send("POST", "/v1/datasets", files=files, data={"name": name, **form})
        return str(answer.json()["id"])

    def _list(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._send("GET", path).json()["data"]
        return found

    def _send(self, method: str, path: str, **sent: Any) -> httpx2.Response:
        """Send a request. Raises `HTTPStatusError` unless it succeeded."""
        url = f"{self._scene.url}{path}"
        answer = httpx2.request(method, url, timeout=TIMEOUT, follow_redirects=True, **sent)
        self.internal_errors += answer.status_code == 500
        return answer.raise_for_status()
