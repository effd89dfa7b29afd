"""The application on a real port, and the command line pointed at it."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer.main
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from app.cli.main import app as command
from app.database.engines import Database
from app.main import create_app
from app.queue import checkpoints, leases
from app.queue.enums import DeviceClass
from app.queue.fencing import Lease, WorkerIdentity
from app.queue.tables import JobEvent, MetricPoint
from app.queue.transitions import InfrastructureUnavailable, PermanentFailure, Succeeded
from app.registry import service as registry
from app.resources import Resources
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.job_rows import MANIFEST
from tests.tiny_artifact import make_artifact

Run = Callable[..., Result]
OWNER = WorkerIdentity(id="test-worker", host="here", boot_id="boot", pid=1, pid_start=1)
SUMMARY = {
    "trainable_parameters": 1234,
    "total_parameters": 22_000_000,
    "examples": {"train": 4000, "validation": 1000, "test": 2000},
    "validation": {"loss": 0.4, "accuracy": 0.83, "macro_f1": 0.829},
    "test": {"loss": 0.41, "accuracy": 0.823, "macro_f1": 0.822},
    "calibration": {
        "temperature": 1.4,
        "test": {
            "texts": 2000,
            "before": {"loss": 0.41, "ece": 0.071, "brier": 0.26},
            "after": {"loss": 0.39, "ece": 0.024, "brier": 0.25},
        },
    },
    "linear": {
        "validation": {"accuracy": 0.75, "macro_f1": 0.749},
        "test": {"accuracy": 0.744, "macro_f1": 0.743},
    },
}


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Run the application in a thread and yield its URL."""
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    """The runner would build all of them again for each command that it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def database_kind() -> str:
    """Commands find their database by the data directory alone."""
    return "sqlite"


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, without log lines among those of the command."""
    return create_app(settings.model_copy(update={"log_level": "ERROR"}))


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """Return the URL of the service."""
    with serving(app) as address:
        yield address


@pytest.fixture
def run() -> Run:
    """A command without a service."""

    def invoke(*arguments: str, input: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(command, arguments, input=input, env=environment)

    return invoke


@pytest.fixture
def cli(run: Run, url: str) -> Run:
    """A command that talks to the service."""

    def invoke(*arguments: str, **more: Any) -> Result:
        return run(*arguments, LORAWORKS_URL=url, **more)

    return invoke


@pytest.fixture
def cli_of_two_inputs(run: Run, settings: Settings) -> Iterator[Run]:
    """A command that talks to a service that takes two texts in a request."""
    changes = {"log_level": "ERROR", "max_inputs": 2}
    with serving(create_app(settings.model_copy(update=changes))) as url:
        yield lambda *arguments, **more: run(*arguments, LORAWORKS_URL=url, **more)


def answer(result: Result) -> Any:
    """Return the JSON that a successful command printed."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class FakeWorker:
    """Changes the database as a worker does, without training."""

    def __init__(self, resources: Resources) -> None:
        self.database: Database = resources.database
        self.resources = resources

    def claim(self) -> Lease:
        """Return the next job, waiting for one that is submitted a little later."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with self.database.write() as session:
                claimed = leases.claim_job(
                    session,
                    owner=OWNER,
                    device_class=DeviceClass.CPU,
                    device="cpu",
                    lease_seconds=60,
                )
            if claimed is not None:
                return claimed.lease
            time.sleep(0.01)
        raise AssertionError("no job came")

    def report(self, lease: Lease, step: int, loss: float, accuracy: float) -> None:
        """Record an event, the train loss, and the validation accuracy of a step."""
        points = [("train", "loss", loss), ("validation", "accuracy", accuracy)]
        with self.database.write() as session:
            beat = leases.renew_lease(session, lease, step=step, total_steps=100, reserve=3)
            assert beat is not None
            seq = beat.first_seq
            where = {"job_id": lease.job_id, "attempt": lease.attempt}
            session.add(
                JobEvent(
                    **where, seq=seq, kind="noted", level="info", message=f"At {step}.", data={}
                )
            )
            for offset, (split, name, value) in enumerate(points, 1):
                session.add(
                    MetricPoint(
                        **where, seq=seq + offset, split=split, name=name, step=step, value=value
                    )
                )

    def save(self, lease: Lease, *, step: int) -> None:
        """Record a checkpoint without files."""
        ref = ArtifactRef(f"checkpoints/{lease.job_id}/a1/step-{step}", "0" * 64, bytes=1)
        with self.database.write() as session:
            beat = leases.renew_lease(session, lease, step=step, reserve=1)
            assert beat is not None
            checkpoints.record_and_rotate_checkpoints(
                session, lease, step=step, ref=ref, seq=beat.first_seq
            )

    def fail(self, lease: Lease) -> None:
        with self.database.write() as session:
            leases.finish_attempt(
                session, lease, PermanentFailure("one_class", "Only one label.", {})
            )

    def wait(self, lease: Lease) -> None:
        why = InfrastructureUnavailable("storage_unavailable", "The disk of node-1 is full.", 60)
        with self.database.write() as session:
            leases.finish_attempt(session, lease, why)

    def succeed(
        self, lease: Lease, directory: Path, *, register_as: str | None = None, **metrics: Any
    ) -> UUID:
        """Store a small artifact and finish the job with it."""
        summary = {**SUMMARY, **metrics}
        make_artifact(directory, metrics=summary)
        ref = self.resources.store.move_directory_into_store(
            directory, f"jobs/{lease.job_id}/a{lease.attempt}"
        )
        with self.database.write() as session:
            artifact = artifacts.add_artifact(session, job_id=lease.job_id, kind="model", ref=ref)
            if register_as:
                facts = {**MANIFEST, "metrics": summary}
                version = registry.add_version(
                    session, name=register_as, artifact=artifact, manifest=facts
                )
                summary["model_version"] = f"{register_as}:{version.number}"
            leases.finish_attempt(session, lease, Succeeded(artifact.id, summary))
        return artifact.id


@pytest.fixture
def worker(resources: Resources) -> FakeWorker:
    """A worker that does not train."""
    return FakeWorker(resources)


class SweepJobWorker(FakeSweepWorker):
    """Finishes the jobs of trials: the larger the rank, the higher the accuracy."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources, accuracy_of=lambda spec: 0.8 + spec["method"]["r"] / 100)


@pytest.fixture
def sweep_job_worker(resources: Resources) -> SweepJobWorker:
    """A worker for sweeps over the rank."""
    return SweepJobWorker(resources)
