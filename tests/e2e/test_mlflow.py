"""A real MLflow server that is killed, frozen and started again, read with its own client.

It comes from `.venv-mlflow`, an environment of its own (`make .venv-mlflow/.made`).
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from pydantic import SecretStr

from app.mlflow import repository
from app.mlflow.connection import parse_mlflow_settings
from app.outbox import repository as outbox
from app.registry import service as registry
from tests.docs.blocks import blocks
from tests.e2e.installation import Installation
from tests.job_rows import claim_next, points
from tests.mlflow_rows import create_job, run_row, send
from tests.servers import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv-mlflow" / "bin"
DOCUMENT = "docs/how-to/mlflow.md"
Json = dict[str, Any]


class Server:
    """`mlflow server` on SQLite."""

    def __init__(self, folder: Path, password: str | None = None) -> None:
        """With the password of `admin`, the server requires authentication."""
        self.port = free_port()
        self.folder = folder
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        offline = {
            "HF_HUB_OFFLINE": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that outlive it
        }
        locked = {}
        if self.password is not None:
            locked = {
                "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
                "MLFLOW_FLASK_SERVER_SECRET_KEY": self.password,
            }
        return os.environ | offline | locked | {"MLFLOW_TRACKING_URI": self.url}

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--backend-store-uri": f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination": str(self.folder / "artifacts"),
            "--workers": "1",
            **({"--app-name": "basic-auth"} if self.password is not None else {}),
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "mlflow", "server", *(word for each in options.items() for word in each)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, seconds=120, pause=0.3, what="the start of MLflow")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return httpx2.get(f"{self.url}/health", timeout=5).is_success
        except httpx2.HTTPError:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to the server and its workers."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def python(self, *arguments: str) -> str:
        """Run a program with MLflow's own client."""
        done = subprocess.run(
            [BIN / "python", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self) -> Json:
        reader = Path(__file__).with_name("mlflow_reader.py")
        found: Json = json.loads(self.python(str(reader), self.url).splitlines()[-1])
        return found


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "mlflow")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def installation(tmp_path: Path, mlflow: Server) -> Iterator[Installation]:
    made = Installation(tmp_path / "loraworks", changes={"mlflow_tracking_uri": mlflow.url})
    yield made
    made.close()


def submit(installation: Installation, **changes: Any) -> UUID:
    """Queue a training with its row in the outbox, as the API does."""
    job_id = installation.submit(register_as="sentiment", **changes)
    with installation.database.write() as session:
        outbox.add_mlflow_run(session, job_id)
    return job_id


def wait_until_all_is_sent(installation: Installation) -> None:
    def sent() -> bool:
        with installation.database.read() as session:
            backlog = repository.count_backlog(session)
        assert backlog.failed_runs == 0
        return backlog.runs == backlog.models == 0

    wait_until(sent, seconds=150, pause=0.3, what="the last run and model")


def promote(installation: Installation, number: int) -> None:
    with installation.database.write() as session:
        registry.move_alias(session, name="sentiment", alias="production", number=number)


def test_a_server_that_is_killed_frozen_and_started_again(
    installation: Installation, mlflow: Server
) -> None:
    first = submit(installation, name="first")
    installation.worker()
    installation.succeeded(first)
    promote(installation, 1)
    wait_until_all_is_sent(installation)
    found = mlflow.read()
    assert found["runs"][str(first)]["status"] == "FINISHED"
    assert found["models"]["sentiment"]["aliases"] == {"production": "1"}

    mlflow.kill()  # while it is away, a job trains, its version is promoted, and another one fails
    second = submit(installation, name="second")
    failed = submit(installation, spec={"data": {"source": "/nowhere.csv"}})
    installation.succeeded(second)
    installation.ended(failed)
    promote(installation, 2)
    mlflow.start()
    mlflow.signal(signal.SIGSTOP)  # it accepts connections, and answers nothing
    third = submit(installation, name="third")
    installation.succeeded(third)
    mlflow.signal(signal.SIGCONT)
    wait_until_all_is_sent(installation)

    found = mlflow.read()
    runs, model = found["runs"], found["models"]["sentiment"]
    assert set(runs) == {str(each) for each in (first, second, failed, third)}
    assert runs[str(failed)]["status"] == "FAILED"
    for job_id in (first, second, third):
        run = runs[str(job_id)]
        assert (run["status"], run["params"]["method.r"]) == ("FINISHED", "4")
        assert run["tags"]["loraworks.state"] == "succeeded"
        curves: dict[str, list[list[float]]] = {}
        for point in points(installation.database, job_id):
            curves.setdefault(f"{point.split}/{point.name}", []).append(
                [point.step, pytest.approx(point.value)]  # type: ignore[list-item]
            )
        assert {name: each for name, each in run["curves"].items() if name in curves} == curves
        assert "best/test/accuracy" in run["curves"]
        assert run_row(installation.database, job_id).run_id == run["run_id"]
    assert model["aliases"] == {"production": "2"}
    assert {number: each["run_id"] for number, each in model["versions"].items()} == {
        str(number): runs[str(job_id)]["run_id"]
        for number, job_id in enumerate((first, second, third), 1)
    }
    version = model["versions"]["2"]
    assert version["source"] == "loraworks:/sentiment/2"
    assert "http://127.0.0.1:8000/models/sentiment#version-2" in version["description"]
    assert version["tags"]["loraworks.version"] == "sentiment:2"
    assert float(version["tags"]["test/accuracy"]) == pytest.approx(
        runs[str(second)]["curves"]["best/test/accuracy"][-1][1], rel=1e-4
    )

    with installation.database.write() as session:
        registry.move_alias(session, name="sentiment", alias="production", number=1, rollback=True)
    wait_until_all_is_sent(installation)
    assert mlflow.read()["models"]["sentiment"]["aliases"] == {"production": "1"}

    (code,) = (each.text for each in blocks(DOCUMENT) if "import mlflow" in each.text)
    printed = mlflow.python("-c", code.replace('"reviews"', '"loraworks"'))
    assert runs[str(first)]["run_id"] in printed
    assert "sentiment:1" in printed


def test_a_worker_that_is_killed_while_it_sends(installation: Installation, mlflow: Server) -> None:
    """The next one finds what was created, after the lease has run out."""
    jobs = [submit(installation, name=str(number)) for number in range(3)]
    worker = installation.worker()
    installation.succeeded(*jobs[:1])

    def sends() -> bool:
        with installation.database.read() as session:
            return repository.find_server(session) is not None

    wait_until(sends)
    worker.kill()
    with installation.database.write() as session:  # as if five minutes had passed
        server = repository.find_server(session)
        assert server is not None
        server.lease_expires_at = None
    installation.worker()
    installation.succeeded(*jobs)
    wait_until_all_is_sent(installation)
    found = mlflow.read()
    assert set(found["runs"]) == {str(each) for each in jobs}
    assert len(found["models"]["sentiment"]["versions"]) == 3


def test_a_server_that_requires_a_password(tmp_path: Path) -> None:
    password = "correct-horse-battery"
    server = Server(tmp_path / "locked", password)
    server.start()
    installation = Installation(tmp_path / "loraworks")
    try:
        for sent, code in (("wrong-horse-battery", "mlflow_unauthorized"), (password, None)):
            settings = installation.settings.model_copy(
                update={
                    "mlflow_tracking_uri": server.url,
                    "mlflow_username": "admin",
                    "mlflow_password": SecretStr(sent),
                }
            )
            connection = parse_mlflow_settings(settings)
            assert connection is not None
            with installation.database.write() as session:
                repository.register_server_and_fill_outbox(session, connection)
            job_id = create_job(installation.database)
            claim_next(installation.database)
            assert send(installation.database, connection)
            with installation.database.read() as session:
                row = repository.find_server(session)
            assert row is not None
            assert (row.last_error_code if row.failures else None) == code
            assert (run_row(installation.database, job_id).run_id is None) == (code is not None)
    finally:
        installation.close()
        server.kill()
