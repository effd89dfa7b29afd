"""The sweep through a service of our own: a fresh data folder, an empty cache, one worker.

All requests to the API of sweeps are in this module.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from app.cli.demo import temporary_service
from app.cli.json_client import JsonClient
from benchmarks.sweep.plan import LEARNING_RATE, TARGETS, Size
from benchmarks.train.plan import BASE, BATCH, WARMUP, WEIGHT_DECAY
from lora_core.process_settings import available_cores

FINISHED = "finished"
WITHOUT_RESULT = ("failed", "cancelled")
LOOK_SECONDS = 0.5  # between polls of its state; the time is at most this much too long
PATIENCE_SECONDS = 3600.0


class Service(Protocol):
    """A client of the service."""

    def request_json(self, method: str, path: str, **arguments: Any) -> Any: ...

    def request(self, method: str, path: str, **arguments: Any) -> Any: ...


def measure(strategy: str, size: Size) -> dict[str, Any]:
    """Seconds from the POST until the sweep is finished, its winner, and the answers of its trials.

    The start of the service is reported separately as `start_seconds`.
    """
    slots = (
        available_cores() if strategy == "grid" else 1
    )  # the last rungs of halving have fewer trials
    with TemporaryDirectory(prefix="bench-sweep-", ignore_cleanup_errors=True) as folder:
        os.environ["LORAWORKS_CACHE"] = str(Path(folder) / "cache")
        began = time.monotonic()
        with temporary_service(Path(folder), concurrency=slots) as url, JsonClient(url) as service:
            start_seconds = time.monotonic() - began
            found = sweep(service, body(strategy, size))
    return {"start_seconds": start_seconds, "cores": available_cores(), "slots": slots, **found}


def body(strategy: str, size: Size) -> dict[str, Any]:
    """The sweep that is sent: the trial with the least loss on validation wins."""
    data = size.data
    more = size.halving if strategy == "halving" else {}
    return {
        "name": "bench",
        "objective": "loss",  # with few texts it is more informative than accuracy
        "job": {
            "method": {"type": "lora", "variant": "lora"},
            "base": BASE,
            "pooling": "cls",  # as the competitors read it
            "head_init": "random",  # as the competitors start it
            "data": {
                "source": data.source,
                "train_size": data.train_size,
                "validation_size": data.validation_size,
                "test_size": data.test_size,
                "max_length": data.max_length,
            },
            "optim": {
                "epochs": 1,
                "learning_rate": LEARNING_RATE,
                "batch_size": BATCH,
                "warmup": WARMUP,
                "weight_decay": WEIGHT_DECAY,
                "head_dropout": 0.0,
            },
            "stop": {"select_by": "accuracy", "evaluations_per_epoch": 1},
        },
        "space": {
            "method.alpha": list(size.alphas),
            "method.r": list(size.ranks),
            "method.targets": [[role.value for role in roles] for roles in TARGETS.values()],
        },
        "strategy": {"type": strategy, **more},
    }


def sweep(service: Service, wanted: dict[str, Any]) -> dict[str, Any]:
    """Send it, wait for its end, and read what came out."""
    began = time.monotonic()
    path = f"/v1/sweeps/{service.request_json('POST', '/v1/sweeps', json=wanted)['id']}"
    finished = _finished(service, path)
    seconds = time.monotonic() - began
    rows = service.request_json("GET", f"{path}/trials")
    return {
        "sweep_seconds": seconds,
        "winner": finished["result"]["winner"]["number"],
        "trials": [_trial(service, row) for row in rows],
    }


def _finished(service: Service, path: str) -> dict[str, Any]:
    """Its final state. Exits if there is no result."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        view: dict[str, Any] = service.request_json("GET", path)
        if view["state"] == FINISHED:
            return view
        if view["state"] in WITHOUT_RESULT or time.monotonic() > end:
            sys.exit(f"no result of the sweep: {json.dumps(view)}")
        time.sleep(LOOK_SECONDS)


def _trial(service: Service, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the results; with the predictions of trials that were trained to the end."""
    kept = {name: row[name] for name in ("number", "settings", "state", "budget", "seconds")}
    metrics = row["metrics"] or {}
    for split in ("validation", "test"):
        kept[split] = (metrics.get(split) or {}).get("accuracy")
    if kept["test"] is not None:
        artifact = service.request_json("GET", f"/v1/jobs/{row['job_id']}")["artifact_id"]
        kept |= _answers(service, artifact)
    return kept


def _answers(service: Service, artifact: str) -> dict[str, str]:
    """1 or 0 for each test text, and digests of the texts and the data."""
    path = f"/v1/artifacts/{artifact}"
    text = service.request("GET", f"{path}/files/predictions/test.jsonl").text
    lines = [json.loads(line) for line in text.splitlines()]
    texts = json.dumps([(each["row"], each["label"]) for each in lines])
    return {
        "correct": "".join(str(int(each["predicted"] == each["label"])) for each in lines),
        "texts": hashlib.sha256(texts.encode()).hexdigest(),
        "data": service.request_json("GET", path)["data_sha256"],
    }
