"""Labeling with real processes: vectors by a worker, and an API process that is killed."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.json_client import JsonClient
from app.database.base import new_id
from app.queue.enums import AttemptOutcome, JobKind
from app.queue.tables import Job
from app.resources import Resources, open_resources
from app.storage import repository as artifacts
from app.storage.store import verify_artifact
from lora_core import manifest
from lora_core.embed_file import CHUNK_ROWS
from lora_core.specs.embed import VECTORS_FILE, EmbedSpec
from lora_core.specs.predict import PredictDataSpec
from tests.browser.service import API, Service
from tests.e2e.installation import Installation, Process
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.job_rows import add_job, attempts
from tests.lora_core.batch_prediction.conftest import make_texts
from tests.prediction_rows import add_texts
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROWS = 2 * CHUNK_ROWS + 100


@pytest.fixture
def resources(installation: Installation, tmp_path: Path) -> Iterator[Resources]:
    opened = open_resources(installation.settings)
    make_texts(tmp_path / "texts.csv", ROWS)
    yield opened
    opened.close()


def embed(installation: Installation, dataset_id: UUID) -> UUID:
    """Queue a job that computes the vectors of `texts`."""
    data = PredictDataSpec(source="texts:1", text_column="body")
    spec = EmbedSpec(base=str(installation.base), data=data).model_dump(mode="json")
    return add_job(
        installation.database, id=new_id(), kind=JobKind.EMBEDDING, method="embed", spec=spec,
        spec_version=1, base=spec["base"], dataset_ids={"all": str(dataset_id)}, total_steps=ROWS,
    )  # fmt: skip


def vectors(resources: Resources, job_id: UUID) -> str:
    """Their digest."""
    with resources.database.read() as session:
        artifact_id = session.get_one(Job, job_id).artifact_id
        assert artifact_id is not None
        ref = artifacts.get_artifact(session, artifact_id).ref
    directory = verify_artifact(resources.store, ref, name="vectors")
    assert manifest.read(directory)["spec"]["data"]["source"] == "texts:1"  # the public name
    return hashlib.sha256((directory / VECTORS_FILE).read_bytes()).hexdigest()


@pytest.mark.slow  # the small form is in tests/lora_core/test_embed_file.py
@EMBEDDED_FIRST
def test_killed_processes_and_workers_change_no_vector(
    installation: Installation, resources: Resources, tmp_path: Path
) -> None:
    dataset = add_texts(resources, tmp_path / "texts.csv", rows=ROWS)
    trigger, hold = tmp_path / "trigger", tmp_path / "hold"
    trigger.touch()
    killed_child = embed(installation, dataset.id)
    worker = installation.worker(fault=f"embedded@2:kill:{trigger}")
    installation.succeeded(killed_child)
    assert worker.leave() == 0

    hold.touch()
    killed_worker = embed(installation, dataset.id)
    worker = installation.worker(fault=f"embedded@2:pause:{hold}")
    wait_until(tmp_path.joinpath("hold.reached").exists, seconds=60)
    installation.saw(killed_worker, "checkpoint")
    worker.kill()
    hold.unlink()
    uninterrupted = embed(installation, dataset.id)
    installation.worker()
    installation.succeeded(killed_worker, uninterrupted)

    expected = vectors(resources, uninterrupted)
    for job_id, outcome in (
        (killed_child, AttemptOutcome.FAILED),
        (killed_worker, AttemptOutcome.LOST),
    ):
        legs = attempts(installation.database, job_id)
        assert [leg.outcome for leg in legs] == [outcome, AttemptOutcome.SUCCEEDED]
        assert [leg.first_step for leg in legs] == [0, CHUNK_ROWS]
        assert vectors(resources, job_id) == expected


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    opened = Service(tmp_path / "service")
    yield opened
    opened.close()


def create_project(service: Service, folder: Path, texts: int) -> None:
    file = folder / "texts.jsonl"
    lines = [json.dumps({"text": f"{('a good', 'a bad')[i % 2]} film {i}"}) for i in range(texts)]
    file.write_text("\n".join(lines))
    service.upload(file, "films", purpose="predict")
    base = str(service.installation.base)
    body = {"name": "mood", "dataset": "films", "labels": ["bad", "good"], "base": base}
    service.post("/v1/labeling", body)


@pytest.mark.slow  # without a worker: tests/app/labeling
def test_a_pile_of_texts_becomes_a_model(service: Service, tmp_path: Path) -> None:
    create_project(service, tmp_path, 80)
    service.installation.worker()

    def is_ready() -> bool:
        state = service.get("/v1/labeling/mood")["vectors"]["state"]
        assert state != "failed", service.installation.tail()
        return bool(state == "ready")

    service.wait("the vectors", is_ready)
    reasons, suggested = set(), []
    for _ in range(60):
        service.get("/v1/labeling/mood")  # waits a moment for a fit that is due
        [text] = service.post("/v1/labeling/mood/next", {"count": 1})["texts"]
        truth = "good" if "good" in text["text"] else "bad"
        reasons.add(text["reason"])
        if text["suggestion"]:
            suggested.append(text["suggestion"]["label"] == truth)
            assert text["reason"] != "random"
        service.client.request_json(
            "PUT", f"/v1/labeling/mood/texts/{text['row']}", json={"label": truth}
        )
    assert reasons >= {"random", "spread", "uncertain"}
    assert len(suggested) > 20
    view = service.get("/v1/labeling/mood")
    assert (view["labeled"], view["random_labeled"]) == (60, 12)
    dataset = service.post("/v1/labeling/mood/dataset", {"name": "labeled"})
    assert dataset["rows"] == 60
    job = service.submit(data={"source": dataset["ref"]}, method={"type": "linear"})
    service.wait_for_success(job)


class RestartedApi:
    """An API process that is killed, and started again on the same port."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.port = service.url.rpartition(":")[2]
        self.process = Process(service.installation.processes[0])

    def restart(self) -> None:
        self.process.kill()
        installation = self.service.installation
        self.process = installation.start([*API, self.port], installation.environment())


@pytest.mark.slow
def test_no_acknowledged_label_is_lost_when_the_api_is_killed(
    service: Service, tmp_path: Path
) -> None:
    """The client sends each label until it is acknowledged, as the page and the command do."""
    create_project(service, tmp_path, 60)
    api, acknowledged = RestartedApi(service), {}

    def send(method: str, path: str, body: dict[str, Any]) -> Any:
        def attempt() -> Any:
            try:
                with JsonClient(service.url) as client:
                    return client.request_json(method, path, json=body)
            except ServiceUnreachableOrFailed:
                return None

        return service.wait("a response", attempt)

    for turn in range(4):
        leased = send("POST", "/v1/labeling/mood/next", {"count": 3})["texts"]
        for number, text in enumerate(leased):
            label = ("bad", "good")[(turn + number) % 2]
            stored = send("PUT", f"/v1/labeling/mood/texts/{text['row']}", {"label": label})
            acknowledged[text["row"]] = stored["label"]
            if number == turn % 3 and turn < 3:
                api.restart()
    listed = send("GET", "/v1/labeling/mood/annotations?limit=100", {})["data"]
    assert {each["row"]: each["label"] for each in listed} == acknowledged
    assert len(acknowledged) == 12
    assert len(send("POST", "/v1/labeling/mood/next", {"count": 20})["texts"]) == 20
