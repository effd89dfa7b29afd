"""Fixtures: a linear model in production, feedback on it, and a worker in the test's process."""

import io
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.resources import Resources, open_resources
from app.retraining import scheduler
from app.sandbox import runner
from app.settings import Settings
from lora_core.data import learning_curve
from tests.in_process_jobs import run_jobs
from tests.in_process_sandbox import run_in_process
from tests.kept_predictions import add_feedback

MODEL = "mood"
LABELS = {"fine": "good", "awful": "bad"}  # what the first version learns
NEW_WORDS = {"stellar": "good", "dismal": "bad"}  # what only live texts have
_FILLERS = (
    *("table", "lamp", "river", "cloud", "paper", "stone"),
    *("bread", "window", "garden", "music", "train", "coffee"),
)


def skip_learning_curves(patch: pytest.MonkeyPatch) -> None:
    """Read files without a learning curve, which takes a second."""
    patch.setattr(learning_curve, "add_learning_curve_to_report", lambda report, _: report)


@pytest.fixture(autouse=True)
def _no_learning_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_learning_curves(monkeypatch)


def make_texts(words: dict[str, str], count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Different texts with one of the words, which decides the label."""
    rng, texts = random.Random(seed), dict[str, str]()
    while len(texts) < count:
        word = rng.choice(list(words))
        fillers = [rng.choice(_FILLERS) for _ in range(6)]
        texts[" ".join([*fillers, word, str(seed), str(len(texts))])] = words[word]
    return list(texts.items())


@dataclass
class Retraining:
    """A model in production with feedback, whose runs are advanced one step at a time."""

    client: TestClient
    resources: Resources
    directory: Path

    def train(self, **spec: Any) -> dict[str, Any]:
        """Train a version of the model in a job, and those after it, without cross-validation."""
        quick = {"method": {"type": "linear"}, "result": {"cross_validation": False}}
        body = {**quick, "register_as": MODEL, **spec}
        response = self.client.post("/v1/jobs", json=body)
        assert response.status_code == 202, response.text
        assert run_jobs(self.resources, self.directory) == 1
        job: dict[str, Any] = self.client.get(response.headers["Location"]).json()
        assert job["state"] == "succeeded", job["error"]
        return job

    def promote(self, number: int) -> None:
        path = f"/v1/models/{MODEL}/aliases/production"
        response = self.client.put(path, json={"version": number})
        assert response.status_code == 200, response.text

    def upload(self, rows: Sequence[str], *, suffix: str = "jsonl", **fields: Any) -> str:
        """Upload a file and return its reference."""
        content = "\n".join(rows).encode()
        response = self.client.post(
            "/v1/datasets",
            files={"file": (f"moods.{suffix}", io.BytesIO(content))},
            data=fields,
        )
        assert response.status_code == 201, response.text
        ref: str = response.json()["ref"]
        return ref

    def start_with(self, texts: Sequence[tuple[str, str]]) -> None:
        """Train the first version on these texts, and promote it."""
        rows = ["text,label", *(f"{text},{label}" for text, label in texts)]
        ref = self.upload(rows, suffix="csv")
        self.train(data={"source": ref})
        self.promote(1)

    def add_sampled(self, texts: Sequence[tuple[str, str]], **changes: Any) -> None:
        """Label texts that were drawn for a review."""
        for text, label in texts:
            add_feedback(self.resources.database, model=MODEL, text=text, label=label, **changes)

    def volunteer(self, texts: Sequence[tuple[str, str]]) -> None:
        """Send feedback without being asked."""
        items = [{"text": text, "model": MODEL, "label": label} for text, label in texts]
        response = self.client.post("/v1/feedback", json={"items": items})
        assert response.json()["failed"] == 0, response.text

    def set_rule(self, **body: Any) -> dict[str, Any]:
        path = f"/v1/models/{MODEL}/retraining"
        response = self.client.put(path, json={"new_labels": 10, **body})
        assert response.status_code == 200, response.text
        rule: dict[str, Any] = response.json()
        return rule

    def advance(self, steps: int = 1, *, failing: str | None = None) -> dict[str, Any]:
        """Let the worker's clock tick and the jobs run, some times. Return the newest run.

        `failing`: with this error code, jobs fail.
        """
        for _ in range(steps):
            scheduler.start_and_advance_runs(self.resources)
            run_jobs(self.resources, self.directory, failing=failing)
        return self.runs()[0]

    def run_to_end(self, *, failing: str | None = None) -> dict[str, Any]:
        for _ in range(10):
            run = self.advance(failing=failing)
            if run["finished_at"] is not None:
                return run
        raise AssertionError(run)

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(
            f"/v1/models/{MODEL}/retraining/runs", params={"limit": 100}
        ).json()["data"]
        return found

    def aliases(self) -> dict[str, int]:
        found: dict[str, int] = self.client.get(f"/v1/models/{MODEL}").json()["aliases"]
        return found


Start = Callable[..., Retraining]


@pytest.fixture
def empty(client: TestClient, resources: Resources, tmp_path: Path) -> Retraining:
    """No model yet."""
    return Retraining(client, resources, tmp_path)


@pytest.fixture(scope="session")
def knows_labels(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a service with the model of `mood`."""
    folder = tmp_path_factory.mktemp("mood")
    made = Settings(data_dir=folder / "data", allowed_hosts=("testserver",), engine="torch-fp32")
    made.data_dir.mkdir()
    shutil.copyfile(migrated, made.default_sqlite_path)
    with pytest.MonkeyPatch.context() as patch, TestClient(create_app(made)) as client:
        patch.setattr(runner, "run_lora_core_sandboxed", run_in_process)
        skip_learning_curves(patch)
        resources = open_resources(made)
        Retraining(client, resources, folder).start_with(make_texts(LABELS, 300))
        resources.close()
    return made.data_dir


@pytest.fixture
def settings(settings: Settings, database_kind: str, request: pytest.FixtureRequest) -> Settings:
    if "mood" in request.fixturenames and database_kind == "sqlite":
        trained: Path = request.getfixturevalue("knows_labels")
        shutil.copytree(trained, settings.data_dir, dirs_exist_ok=True)
    return settings


@pytest.fixture
def mood(empty: Retraining, database_kind: str) -> Retraining:
    """A model that knows the words of `LABELS` is in production."""
    if database_kind != "sqlite":
        empty.start_with(make_texts(LABELS, 300))
    return empty
