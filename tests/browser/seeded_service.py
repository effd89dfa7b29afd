"""A service with real jobs, a sweep, models and predictions, on a two-layer encoder.

One worker is paused in the middle of a job for the full test run; another one runs the rest.
"""

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.browser import upload_files
from tests.browser.service import Json, Service
from tests.tiny_base import make_reviews

# Screenshots for the documentation use the sample base model and more data.
SCREENSHOTS = os.environ.get("UPDATE_DOCS") == "1"
ROWS = 1000 if SCREENSHOTS else 300
MODEL = "sentiment"
LABELING = "films"
LABELED = 120  # texts, so that 20 of them are random
BEST, SMALL, LAST = "lora r=8, all linears", "lora r=2, query and value", "last layers"
RUNNING, FAILED, CANCELLED = "lora r=16, still running", "full, diverging", "submitted by mistake"
RUNS: dict[str, Json] = {
    BEST: {"method": {"type": "lora", "r": 8}},
    SMALL: {"method": {"type": "lora", "r": 2, "alpha": 8, "targets": ["query", "value"]}},
    LAST: {"method": {"type": "baseline"}, "optim": {"epochs": 5, "learning_rate": 1e-3}},
}
PAUSE_STEP = ROWS // 10  # of 0.15 * ROWS steps
JOB_TIMEOUT = 300_000  # milliseconds for a job to finish; minutes on a busy machine
DIVERGING = {"epochs": 1, "batch_size": 8, "learning_rate": 1e9, "max_grad_norm": 1e6}


@dataclass
class SeededService:
    """A service and the ids of what it contains."""

    service: Service
    folder: Path
    jobs: dict[str, str] = field(default_factory=dict)  # name → id
    sweep: str = ""
    prediction: str = ""
    webhook: str = ""

    def seed(self) -> None:
        """Create what every test can rely on."""
        write = upload_files.write_reviews if SCREENSHOTS else make_reviews
        self.service.upload(write(self.folder / "reviews.csv", ROWS), "reviews")
        self.service.upload(upload_files.write_tickets(self.folder / "tickets.csv"), "tickets")
        base = {"base": "minilm-l6"} if SCREENSHOTS else {}
        self._start_paused_job(**base)
        for name, spec in RUNS.items():
            self.submit(name, **spec, **base)
        self.submit(FAILED, method={"type": "full"}, optim=DIVERGING, **base)
        self.submit(CANCELLED, method={"type": "full"}, **base)
        self.service.post(f"/v1/jobs/{self.jobs[CANCELLED]}/cancel", {})
        self.sweep = self.start_sweep("ranks", **base)
        self.service.installation.worker(concurrency=2)
        self.service.wait_for_success(*(self.jobs[name] for name in RUNS))
        for name in (BEST, SMALL):  # versions 1 and 2, in this order
            self.service.post(f"/v1/models/{MODEL}/versions", {"job_id": self.jobs[name]})
        self.promote(1)
        self._label_texts(**base)
        self.prediction = self.service.post("/v1/predictions", {"dataset": "tickets"})["id"]
        self.wait_for_sweep(self.sweep)
        events = ["job.failed", "model.promoted", "sweep.finished"]
        webhook = {"url": "https://chat.example/hooks", "description": "chat", "events": events}
        self.webhook = self.service.post("/v1/webhooks", webhook)["id"]
        self.service.post(f"/v1/webhooks/{self.webhook}/test", {})
        path = f"/v1/predictions/{self.prediction}"
        self.service.wait(
            "the end of the prediction run",
            lambda: self.service.get(path)["state"] == "succeeded",
        )

    def submit(self, name: str, **body: Any) -> str:
        """Submit a job on the reviews that takes seconds; return its id."""
        self.jobs[name] = self.service.submit(**{"name": name, **self.quick_spec(**body)})
        return self.jobs[name]

    def quick_spec(self, **body: Any) -> Json:
        """Return the spec of such a job: most of its time is process startup."""
        data = {"source": "reviews", "max_length": 48, "validation_size": 0.2, "test_size": 0.2}
        base = str(self.service.installation.base)
        return {"base": base, "data": data, "optim": {"epochs": 4, "batch_size": 16}, **body}

    def submit_slow(self, name: str) -> str:
        """Submit a job that runs for half a minute, with many points on each curve."""
        optim = {"epochs": 100, "batch_size": 4}
        return self.submit(name, method={"type": "lora"}, optim=optim)

    def start_sweep(self, name: str, **body: Any) -> str:
        """Start a sweep of four trials; return its id."""
        job = self.quick_spec(method={"type": "lora", "targets": ["query", "value"]}, **body)
        space = {"method.r": [2, 8], "method.alpha": [8, 32]}
        return str(
            self.service.post("/v1/sweeps", {"name": name, "job": job, "space": space})["id"]
        )

    def wait_for_sweep(self, sweep_id: str) -> None:
        path = f"/v1/sweeps/{sweep_id}"
        self.service.wait(
            f"the end of sweep {sweep_id}", lambda: self.service.get(path)["state"] == "finished"
        )

    def promote(self, version: int) -> None:
        path = f"/v1/models/{MODEL}/aliases/production"
        self.service.client.request_json("PUT", path, json={"version": version})

    def _label_texts(self, **body: Any) -> None:
        """Create a labeling project with suggestions, and label a part of its texts."""
        with (self.folder / "reviews.csv").open(encoding="utf-8") as file:
            labels = {row["text"]: row["label"] for row in csv.DictReader(file)}
        path = self.folder / "pile.csv"
        upload_files.write(path, [(text,) for text in labels], ("text",))
        self.service.upload(path, "pile", purpose="predict")
        project = {"base": str(self.service.installation.base), "dataset": "pile", **body}
        names = sorted(set(labels.values()))
        self.service.post("/v1/labeling", {"name": LABELING, "labels": names, **project})
        url = f"/v1/labeling/{LABELING}"
        self.service.wait(
            "the vectors", lambda: self.service.get(url)["vectors"]["state"] == "ready"
        )
        for _ in range(LABELED // 10):
            for each in self.service.post(f"{url}/next", {"count": 10})["texts"]:
                answer = {"label": labels[each["text"]]}
                self.service.client.request_json("PUT", f"{url}/texts/{each['row']}", json=answer)

    def _start_paused_job(self, **body: Any) -> None:
        """Submit a job that pauses at a step, on a worker of its own."""
        (file := self.folder / "pause").touch()
        self.service.installation.worker(fault=f"step@{PAUSE_STEP}:pause:{file}")
        method = {"type": "lora", "r": 16, "alpha": 32}
        self.submit(RUNNING, method=method, **body)
        self.service.wait("the step to pause at", file.with_name("pause.reached").exists)
