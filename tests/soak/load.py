"""A client that does everything else than train: it uploads, predicts in several formats, explains,
gives feedback, retrains, sweeps, exports, reads pages, gets webhooks, and collects garbage.

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
RETRAINED = "retrained"  # a model of this load
MOST_FEEDBACK = 50  # texts
ROWS = 40


class Load(threading.Thread):
    """One operation after the other, drawn at random, until `stop`."""

    def __init__(self, scene: Scene, draw: random.Random, *, webhook_url: str) -> None:
        super().__init__(name="load", daemon=True)
        self.done: Counter[str] = Counter()  # operations that succeeded
        self.internal_errors = 0  # answers with status 500
        self.problem = ""
        self._scene, self._draw, self._webhook_url = scene, draw, webhook_url
        self._stopped = threading.Event()
        self._number = 0
        self._has_rule = False

    def stop(self) -> None:
        """End after the current operation."""
        self._stopped.set()
        self.join(2 * GC_SECONDS)

    def run(self) -> None:
        operations: list[Callable[[], None]] = [
            *5 * [self._predict], *3 * [self._show_a_page], *2 * [self._upload],
            *2 * [self._complete_a_chat], *2 * [self._classify], *2 * [self._explain],
            *2 * [self._run_predictions], *2 * [self._give_feedback], self._retrain, self._sweep,
            self._export_a_model, self._export_labels, self._get_webhooks, self._collect_garbage,
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

    def _complete_a_chat(self) -> None:
        messages = [{"role": "user", "content": TEXTS[0]}]
        self._send(
            "POST", "/openai/v1/chat/completions", json={"model": MODEL, "messages": messages}
        )

    def _classify(self) -> None:
        self._send("POST", "/mistral/v1/classifications", json={"model": MODEL, "input": TEXTS})

    def _explain(self) -> None:
        self._send("POST", f"/v1/models/{MODEL}/explain", json={"inputs": TEXTS[0]})

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

    def _give_feedback(self) -> None:
        """Correct some texts; delete all feedback once there is much."""
        path = f"/v1/models/{self._retrained()}/feedback"
        given = self._list(f"{path}?limit=100")
        for one in given if len(given) > MOST_FEEDBACK else []:
            self._send("DELETE", f"/v1/feedback/{one['id']}")
        self._number += 1
        items = [
            {
                "text": f"a film {self._number} {i}",
                "model": RETRAINED,
                "label": ("bad", "good")[i % 2],
            }
            for i in range(10)
        ]
        self._send("POST", "/v1/feedback", json={"items": items})

    def _retrain(self) -> None:
        """Start a run, unless one is running."""
        path = f"/v1/models/{self._retrained()}/retraining/runs"
        if all(run["finished_at"] for run in self._list(path)):
            self._send("POST", path)

    def _retrained(self) -> str:
        """Return the name of a model that runs may be started for; make it the first time."""
        if not self._has_rule:
            (version,) = self._send("GET", "/v1/models/honest").json()["versions"]
            path, job = f"/v1/models/{RETRAINED}", {"job_id": version["job_id"]}
            headers = {"Idempotency-Key": RETRAINED}
            self._send("POST", f"{path}/versions", json=job, headers=headers)
            self._send("PUT", f"{path}/aliases/production", json={"version": 1})
            self._send("PUT", f"{path}/retraining", json={"enabled": False})
            self._has_rule = True
        return RETRAINED

    def _get_webhooks(self) -> None:
        """Subscribe, send an event, read what was delivered, and unsubscribe the older ones."""
        for old in self._list("/v1/webhooks"):
            self._send("GET", f"/v1/webhooks/{old['id']}/deliveries")
            self._send("DELETE", f"/v1/webhooks/{old['id']}")
        made = self._send("POST", "/v1/webhooks", json={"url": self._webhook_url}).json()
        self._send("POST", f"/v1/webhooks/{made['id']}/test")

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
