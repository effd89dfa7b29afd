"""One cell of the benchmark: a database, empty and full, each with its own API."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from app.database.migrations import upgrade
from app.queue import leases
from app.queue.enums import DeviceClass
from app.queue.fencing import WorkerIdentity
from app.resources import Resources, open_resources
from app.retention.service import collect_garbage
from app.settings import Settings
from benchmarks.scale import stored, streams
from benchmarks.scale.api import Api, serving
from benchmarks.scale.plan import FULL, Size
from benchmarks.scale.writes import WriteClock
from tests.servers import PostgresServer

WARM = 5  # requests that are not counted
MAX_DURING_GC = 300  # jobs submitted during garbage collection: a key may have 1,000
BODY = {"method": {"type": "lora"}}
LISTS = {
    "jobs": "/v1/jobs",
    "jobs_running": "/v1/jobs?state=running",
    "jobs_search": "/v1/jobs?search=nothing+like+it",
    "predictions": "/v1/predictions",
    "sweeps": "/v1/sweeps",
    "models": "/v1/models",
    "datasets": "/v1/datasets?limit=25",
}
PAGES = {"page": "/", "metrics": "/metrics"}
OWNER = WorkerIdentity(id="bench", host="here", boot_id="boot", pid=1, pid_start=1)


def run(cell: str, size: Size) -> dict[str, Any]:
    """Metrics of a cell named in `plan.CELLS`."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors
    clock = WriteClock()
    with TemporaryDirectory(prefix="bench-scale-") as name, databases(cell) as urls:
        folder = Path(name)
        empty, full = (_installation(folder / each, urls()) for each in ("empty", "full"))
        began = time.perf_counter()
        resources = open_resources(full)
        try:
            stored.fill(resources.database, size)
            stored.store_files(resources.store, resources.database, folder / "files")
            clock.longest_ms()
            gc.collect()
            gc.freeze()  # or the collector scans everything that filling left, in a transaction
            filled = time.perf_counter() - began
            with serving(empty) as beside, serving(full) as api:
                metrics = _submits(beside, api, size.requests)
                metrics |= _lists(api, size.lists)
                metrics |= streams.measure(api, streams=size.streams)
                metrics |= _claims(resources, clock, size.requests)
                metrics |= _sweep(api, size.trials)
                metrics |= _collected(resources, clock, api)
        finally:
            resources.close()
    writes = {name: value for name, value in metrics.items() if name.endswith("_write_ms")}
    return {"fill_seconds": round(filled, 1), **metrics, "longest_write_ms": max(writes.values())}


@contextmanager
def databases(cell: str) -> Iterator[Callable[[], str | None]]:
    """Makes URLs of new databases; None is the file in the data folder."""
    if cell == "sqlite":
        yield lambda: None
        return
    server = PostgresServer()
    try:
        server.start()
        yield server.empty_database
    finally:
        server.remove()


def _installation(folder: Path, url: str | None) -> Settings:
    settings = Settings(
        data_dir=folder,
        database_url=url,
        keep_artifact_days=stored.OLD_DAYS / 2,
        max_streams_per_key=FULL.streams,
    )
    folder.mkdir()
    upgrade(settings)
    return settings


def _submits(empty: Api, full: Api, requests: int) -> dict[str, float]:
    """POST /v1/jobs, in turns, so that the machine is the same for both."""
    took: dict[str, list[float]] = {"empty": [], "full": []}
    for _ in range(WARM + requests):
        for name, api in (("empty", empty), ("full", full)):
            took[name].append(
                _timed(lambda api=api: api.connection.request_json("POST", "/v1/jobs", json=BODY))
            )
    p50 = {name: median(each[WARM:]) for name, each in took.items()}
    return {
        "post_empty_ms_p50": round(p50["empty"], 2),
        "post_full_ms_p50": round(p50["full"], 2),
        "post_ratio": round(p50["full"] / p50["empty"], 2),
        "post_write_ms": full.longest_write_ms(),
    }


def _lists(api: Api, requests: int) -> dict[str, float]:
    took = {
        name: [
            _timed(lambda path=path: api.connection.request("GET", path)) for _ in range(requests)
        ]
        for name, path in (LISTS | PAGES).items()
    }
    found = {name: round(median(each), 2) for name, each in took.items()}
    return {
        "list_ms_p50": max(found[name] for name in LISTS),
        **{f"{name}_ms_p50": value for name, value in found.items()},
        # The first request counts ended jobs; those within a minute of it do not.
        "metrics_cold_ms": round(took["metrics"][0], 2),
    }


def _claims(resources: Resources, clock: WriteClock, claims: int) -> dict[str, float]:
    took = []
    for _ in range(WARM + claims):
        began = time.perf_counter()
        with resources.database.write() as session:
            claimed = leases.claim_job(
                session, owner=OWNER, device_class=DeviceClass.CPU, device="cpu", lease_seconds=3600
            )
        took.append(1000 * (time.perf_counter() - began))
        assert claimed is not None
    return {
        "claim_ms_p50": round(median(took[WARM:]), 2),
        "claim_write_ms": clock.longest_ms(),
    }


def _sweep(api: Api, trials: int) -> dict[str, float]:
    """One request for all trials."""
    side = trials // 50 or 1
    space = {"method.r": list(range(1, 51)), "data.split_seed": list(range(side))}
    milliseconds = _timed(
        lambda: api.connection.request_json(
            "POST", "/v1/sweeps", json={"job": BODY, "space": space}
        )
    )
    return {
        "trials": 50 * side,
        "sweep_seconds": round(milliseconds / 1000, 2),
        "sweep_write_ms": api.longest_write_ms(),
    }


def _collected(resources: Resources, clock: WriteClock, api: Api) -> dict[str, float]:
    """Garbage collection, and jobs that are submitted during it."""
    over, waited = threading.Event(), [0.0]

    def submit() -> None:
        while not over.wait(0.05) and len(waited) < MAX_DURING_GC:
            waited.append(
                _timed(lambda: api.connection.request_json("POST", "/v1/jobs", json=BODY))
            )

    beside = threading.Thread(target=submit)
    beside.start()
    began = time.perf_counter()
    try:
        result = collect_garbage(resources)
    finally:
        seconds = time.perf_counter() - began
        over.set()
        beside.join()
    return {
        "gc_models": len([each for each in result.removals if each.kind == "model"]),
        "gc_seconds": round(seconds, 1),
        "gc_write_ms": clock.longest_ms(),
        "gc_post_ms_max": round(max(waited), 1),
    }


def _timed(call: Callable[[], Any]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)
