"""Every GET responds as the OpenAPI description says: with its media type and its schema."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from app.drift.tables import DriftCheck
from app.outbox.tables import MlflowRun, MlflowServer
from app.resources import Resources
from tests import retraining_rows
from tests.app.jobs.conftest import submit, worker
from tests.app.jobs.test_misclassified import finish
from tests.app.predictions.conftest import store_results
from tests.app.serving.conftest import Publish, publish
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.labeling_rows import create_project, make_pool, next_rows, put
from tests.mistral_files import examples as label_objects

__all__ = ["finish", "publish", "submit", "worker"]

ENDLESS = {"stream_job_events"}  # until the job ends; tests/app/jobs/test_event_stream.py
# A tar file: openapi-python-client warns of every binary media type but octet-stream.
UNDESCRIBED = {"download_artifact_archive"}
SPACE = {"method.alpha": [4.0, 8.0], "method.r": [4, 8]}
DRIFT_CHECK: dict[str, Any] = {
    "model": "sentiment",
    "number": 1,
    "window_start": 0.0,
    "window_end": 1.8e9,
    "training_texts": 500,
    "recent_texts": 100,
    "p_value": 0.002,
    "auc": 0.9,
    "level": 0.01,
    "alarm": True,
    "automatic": True,
    "most_different": [],
}


@pytest.fixture
def examples(
    client: TestClient,
    resources: Resources,
    publish: Publish,
    finish: Callable[..., str],
    tmp_path: Path,
) -> dict[str, str]:
    """A value that exists for each path parameter; `models/name` is the `name` of a model."""
    publish("sentiment")
    rows = "".join(f"The text {number}.,{number % 2}\n" for number in range(40))
    file = {"file": ("mail.csv", f"text,label\n{rows}".encode())}
    assert client.post("/v1/datasets", files=file).status_code == 201
    job_id = finish(texts=True)
    body = {"job": {"method": {"type": "lora"}}, "space": SPACE}
    sweep_id = client.post("/v1/sweeps", json=body).json()["id"]
    assert FakeSweepWorker(resources).run_jobs() == 4
    run = client.post("/v1/predictions", json={"dataset": "mail", "model": "sentiment"}).json()
    assert str(store_results(resources, tmp_path / "results")) == run["id"]
    made = client.post("/openai/v1/files", files=file, data={"purpose": "fine-tune"})
    assert made.status_code == 200, made.text
    body = {"model": "minilm-l6", "training_file": made.json()["id"]}
    tuning = client.post("/openai/v1/fine_tuning/jobs", json=body)
    assert tuning.status_code == 200, tuning.text
    mistral = {"file": ("mails.jsonl", label_objects())}
    mistral_file = client.post("/mistral/v1/files", files=mistral).json()["id"]
    body = {"model": "minilm-l6", "training_files": [{"file_id": mistral_file}]}
    mistral_job = client.post("/mistral/v1/fine_tuning/jobs", json={**body, "hyperparameters": {}})
    assert mistral_job.status_code == 200, mistral_job.text
    change = {"row": 1, "label": "1", "given": "0"}
    corrected = client.post("/v1/datasets/mail/corrections", json={"changes": [change]})
    assert corrected.status_code == 201, corrected.text
    make_pool(resources, tmp_path)
    create_project(client, base="minilm-l6")
    put(client, next_rows(client)[0])
    hook = client.post("/v1/webhooks", json={"url": "https://1.1.1.1/hook"}).json()
    with resources.database.write() as session:
        session.add(MlflowServer(id=1, tracking_uri="https://mlflow.example", experiment="mail"))
        session.add(MlflowRun(id=UUID(job_id), run_id="1"))
        session.add(drift_check := DriftCheck(**DRIFT_CHECK))
    retraining_rows.add_rule(resources.database)
    retraining_run_id = retraining_rows.add_run(resources.database)
    return {
        "job_id": job_id,
        "artifact_id": client.get(f"/v1/jobs/{job_id}").json()["artifact_id"],
        "artifacts/name": "manifest.json",
        "datasets/ref": "mail",
        "labeling/name": "mood",
        "models/name": "sentiment",
        "models/ref": "sentiment:1",
        "model_id": "sentiment",
        "check_id": str(drift_check.id),
        "models/run_id": str(retraining_run_id),
        "sweep_id": sweep_id,
        "run_id": run["id"],
        "webhook_id": hook["id"],
        "file_id": made.json()["id"],
        "fine_tuning_job_id": tuning.json()["id"],
        "mistral/file_id": mistral_file,
        "mistral/job_id": mistral_job.json()["id"],
    }


def example_of(path: str, parameter: str, examples: Mapping[str, str]) -> str:
    """Return a value of a path's parameter that exists."""
    (domain,) = re.findall(r"^(?:/openai|/mistral)?(?:/v1)?/(\w+)/", path)
    api = path.split("/")[1]
    names = (f"{api}/{parameter}", f"{domain}/{parameter}", parameter)
    found = next((examples[name] for name in names if name in examples), None)
    assert found, f"{path}: add a value for {parameter} that exists to the fixture `examples`"
    return found


def fill(path: str, examples: Mapping[str, str]) -> str:
    """Return the path with an example for each parameter."""
    return re.sub(r"\{(\w+)\}", lambda name: example_of(path, name[1], examples), path)


def check(
    response: Any, described: Mapping[str, Any], operation: Mapping[str, Any], status: str
) -> None:
    """The media type is described, and JSON matches its schema."""
    where = f"{operation['operationId']}: {response.status_code} {response.text[:300]}"
    content = operation["responses"][status]["content"]
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{where}: {media_type} is not described, only {list(content)}"
    if media_type.endswith("json"):
        schema = {"components": described["components"], **content[media_type]["schema"]}
        errors = [
            each.message for each in Draft202012Validator(schema).iter_errors(response.json())
        ]
        assert not errors, f"{where}: {errors}"


def test_every_get_responds_as_described(
    client: TestClient, examples: dict[str, str], described: dict[str, Any]
) -> None:
    called = 0
    for path, methods in described["paths"].items():
        operation = methods.get("get", {"operationId": None})
        if operation["operationId"] in {None, *ENDLESS}:
            continue
        query = {"job": examples["job_id"]} if path == "/v1/jobs/compare" else {}
        response = client.get(fill(path, examples), params=query)
        assert response.status_code == 200, (path, response.text)
        if operation["operationId"] not in UNDESCRIBED:
            check(response, described, operation, "200")
        called += 1
    assert called > 30


def test_errors_are_described(client: TestClient, described: dict[str, Any]) -> None:
    failed = 0
    for path, methods in described["paths"].items():
        url = re.sub(r"\{(\w+)\}", lambda name: "9" if name[1] == "number" else str(uuid4()), path)
        for method, operation in methods.items():
            response = client.request(method, url, params={"limit": "x"}, content=b"[")
            if response.is_error:
                check(response, described, operation, f"{response.status_code // 100}XX")
                failed += 1
    assert failed > 60


def test_the_check_finds_what_is_not_described(
    client: TestClient, described: dict[str, Any]
) -> None:
    response = client.get("/livez")
    operation = described["paths"]["/livez"]["get"]
    check(response, described, operation, "200")
    with pytest.raises(AssertionError, match="is not described"):
        check(response, described, operation, "4XX")
    with pytest.raises(AssertionError, match="is not described, only"):
        check(client.get("/metrics"), described, operation, "200")
    with pytest.raises(AssertionError, match="is a required property"):
        check(response, described, described["paths"]["/readyz"]["get"], "200")
