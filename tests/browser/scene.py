"""What the pages show: real jobs of a real worker, on an encoder of two layers.

One worker holds its job in mid-run, as long as the tests last; another one does all the rest.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.browser import files
from tests.browser.service import Json, Service
from tests.tiny_base import make_reviews

# Pictures for the docs are taken of the sample base, after it has learnt something.
PICTURES = os.environ.get("UPDATE_DOCS") == "1"
ROWS = 1000 if PICTURES else 300
MODEL = "sentiment"
BEST, SMALL, LAST = "lora r=8, all linears", "lora r=2, query and value", "last layers"
HELD, FAILED, CANCELLED = "lora r=16, still running", "full, far too fast", "sent by mistake"
RUNS: dict[str, Json] = {
    BEST: {"method": {"type": "lora", "r": 8}},
    SMALL: {"method": {"type": "lora", "r": 2, "alpha": 8, "targets": ["query", "value"]}},
    LAST: {"method": {"type": "baseline"}, "optim": {"epochs": 5, "learning_rate": 1e-3}},
}
HELD_AT = ROWS // 10  # of 0.15 * ROWS steps
END = 300_000  # milliseconds until a training has ended; it takes minutes on a busy machine
TOO_FAST = {"epochs": 1, "batch_size": 8, "learning_rate": 1e9, "max_grad_norm": 1e6}


@dataclass
class Scene:
    """A service and what is in it."""

    service: Service
    folder: Path
    jobs: dict[str, str] = field(default_factory=dict)  # name → id
    sweep: str = ""
    prediction: str = ""

    def build(self) -> None:
        """All that is there for every test."""
        write = files.write_reviews if PICTURES else make_reviews
        self.service.upload(write(self.folder / "reviews.csv", ROWS), "reviews")
        self.service.upload(files.write_tickets(self.folder / "tickets.csv"), "tickets")
        shown = {"base": "minilm-l6"} if PICTURES else {}
        self._hold(**shown)
        for name, run in RUNS.items():
            self.submit(name, **run, **shown)
        self.submit(FAILED, method={"type": "full"}, optim=TOO_FAST, **shown)
        self.submit(CANCELLED, method={"type": "full"}, **shown)
        self.service.post(f"/v1/jobs/{self.jobs[CANCELLED]}/cancel", {})
        self.sweep = self.start_sweep("ranks", **shown)
        self.service.installation.worker(slots=2)
        self.service.succeeded(*(self.jobs[name] for name in RUNS))
        for name in (BEST, SMALL):  # version 1 and version 2, whichever ended first
            self.service.post(f"/v1/models/{MODEL}/versions", {"job_id": self.jobs[name]})
        self.promote(1)
        self.prediction = self.service.post("/v1/predictions", {"dataset": "tickets"})["id"]
        self.sweep_ended(self.sweep)
        path = f"/v1/predictions/{self.prediction}"
        self.service.wait(
            "the end of the prediction run",
            lambda: self.service.get(path)["state"] == "succeeded",
        )

    def submit(self, name: str, **body: Any) -> str:
        """A job over the reviews that takes seconds."""
        self.jobs[name] = self.service.submit(**{"name": name, **self.quick(**body)})
        return self.jobs[name]

    def quick(self, **body: Any) -> Json:
        """What such a job is: most of its time is the start of its process."""
        data = {"source": "reviews", "max_length": 48, "validation_size": 0.2, "test_size": 0.2}
        base = str(self.service.installation.base)
        return {"base": base, "data": data, "optim": {"epochs": 4, "batch_size": 16}, **body}

    def submit_slow(self, name: str) -> str:
        """A job that can be watched for half a minute: many points on each curve."""
        optim = {"epochs": 100, "batch_size": 4}
        return self.submit(name, method={"type": "lora"}, optim=optim)

    def start_sweep(self, name: str, **body: Any) -> str:
        """Four cells."""
        job = self.quick(method={"type": "lora", "targets": ["query", "value"]}, **body)
        space = {"method.r": [2, 8], "method.alpha": [8, 32]}
        return str(
            self.service.post("/v1/sweeps", {"name": name, "job": job, "space": space})["id"]
        )

    def sweep_ended(self, sweep_id: str) -> None:
        path = f"/v1/sweeps/{sweep_id}"
        self.service.wait(
            f"the end of sweep {sweep_id}", lambda: self.service.get(path)["state"] == "finished"
        )

    def promote(self, version: int) -> None:
        path = f"/v1/models/{MODEL}/aliases/production"
        self.service.client.json("PUT", path, json={"version": version})

    def _hold(self, **body: Any) -> None:
        """A job that stands still at a step, in the hands of a worker that does nothing else."""
        (file := self.folder / "hold").touch()
        self.service.installation.worker(fault=f"step@{HELD_AT}:pause:{file}")
        method = {"type": "lora", "r": 16, "alpha": 32}
        self.submit(HELD, method=method, **body)
        self.service.wait("the step to hold at", file.with_name("hold.reached").exists)
