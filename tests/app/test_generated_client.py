"""A client that openapi-python-client generates from our description works with the service."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import FakeWorker, serving, worker
from tests.app.serving.conftest import Publish, publish

__all__ = ["publish", "worker"]

# That responses are as described: test_described_responses.py
pytestmark = pytest.mark.slow

PACKAGE = "loraworks_client"
GENERATE = ("generate", "--fail-on-warning", "--meta", "none", "--output-path", PACKAGE, "--path")
ROWS = b"text,label\n" + b"".join(b"A text %d.,%s\n" % (n, b"ab"[n % 2 :][:1]) for n in range(40))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the generated package."""
    folder = tmp_path_factory.mktemp("generated")
    description = folder / "openapi.json"
    description.write_text(json.dumps(create_app(Settings(data_dir=folder)).openapi()))
    programs = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = (sys.executable, "-m", "openapi_python_client", *GENERATE, str(description))
    done = subprocess.run(words, cwd=folder, env=programs, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "warn" not in output.lower(), output
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder / PACKAGE


@pytest.fixture
def client(generated: Path, app: FastAPI) -> Iterator[Any]:
    """The generated client of a running service."""
    with (
        serving(app) as url,
        import_module(PACKAGE).Client(base_url=url, raise_on_unexpected_status=True) as opened,
    ):
        yield opened


def call(client: Any, operation: str, *arguments: object, **options: object) -> Any:
    """Call the function of an operation: `jobs.create_job`."""
    function = import_module(f"{PACKAGE}.api.{operation}").sync
    return function(*arguments, client=client, **options)


def models() -> Any:
    return import_module(f"{PACKAGE}.models")


def test_each_operation_has_a_function(generated: Path, app: FastAPI) -> None:
    described = [
        f"{operation['tags'][0]}/{operation['operationId']}"
        for methods in app.openapi()["paths"].values()
        for operation in methods.values()
    ]
    modules = generated.glob("api/*/[a-z]*.py")
    assert sorted(f"{each.parent.name}/{each.stem}" for each in modules) == sorted(described)


def test_client_uploads_a_file_and_trains_on_it(client: Any, worker: FakeWorker) -> None:
    made = models()
    file = import_module(f"{PACKAGE}.types").File(payload=BytesIO(ROWS), file_name="mail.csv")
    dataset = call(client, "datasets.upload_dataset", body=made.UploadDatasetBody(file=file))
    assert (dataset.ref, dataset.rows, dataset.label_count) == ("mail:1", 40, 2)
    assert call(client, "datasets.download_dataset", "mail").payload.read() == ROWS

    body = made.JobCreate(
        method=made.LoraSpec(r=4, targets=[made.LayerRole.QUERY]),
        data=made.DataSpec(source=dataset.ref),
        tags=["mail"],
    )
    plan = call(client, "jobs.create_job", body=body, dry_run=True)
    assert isinstance(plan, made.JobPlan)
    assert plan.spec["method"]["r"] == 4
    job = call(client, "jobs.create_job", body=body)
    assert isinstance(job, made.JobView)
    assert isinstance(job.id, UUID)
    assert (job.state, job.spec["method"]["targets"]) == (made.JobState.QUEUED, ["query"])

    lease = worker.claim()
    assert lease.job_id == job.id
    worker.fail(lease)
    ended = call(client, "jobs.get_job", job.id)
    assert (ended.state, ended.error.code) == (made.JobState.FAILED, "one_class")
    assert ended.finished_at >= ended.created_at
    listed = call(client, "jobs.list_jobs", state=made.JobState.FAILED, tag="mail", limit=5)
    assert [each.id for each in listed.data] == [job.id]


def test_client_creates_a_sweep(client: Any) -> None:
    made = models()
    space = made.SweepCreateSpace.from_dict({"method.r": [2, 4], "optim.epochs": [1, 2, 3]})
    lora = made.TrainSpec(method=made.LoraSpec())
    body = made.SweepCreate(
        job=lora, space=space, strategy=made.RandomSearch(trials=3), name="ranks"
    )
    plan = call(client, "sweeps.create_sweep", body=body, dry_run=True)
    assert (type(plan), plan.trials) == (made.SweepPlan, 3)
    sweep = call(client, "sweeps.create_sweep", body=body)
    assert (sweep.name, sweep.trial_count, sweep.strategy["type"]) == ("ranks", 3, "random")
    trials = call(client, "sweeps.list_trials", sweep.id)
    assert {each.settings["method.r"] for each in trials} <= {2, 4}


def test_client_predicts(client: Any, publish: Publish) -> None:
    publish("sentiment", top_label="good")
    made = models()
    one = call(client, "predict.predict", body=made.PredictBody(inputs="a good film"))
    assert one[0].label == "good"
    assert sum(each.score for each in one) == pytest.approx(1)
    body = made.PredictBodyWithoutModel(inputs=["a", "b"], top_k=1)
    many = call(client, "predict.predict_with_model", "sentiment:1", body=body)
    assert [[each.label for each in labels] for labels in many] == [["good"], ["good"]]
    info = call(client, "predict.get_default_model_info")
    assert info.model_type.classifier.label2id["good"] >= 0


def test_errors_are_parsed_in_the_format_of_their_route(client: Any) -> None:
    missing = call(client, "jobs.get_job", uuid4())
    assert (type(missing), missing.code) == (models().Problem, "job_not_found")
    bad = models().JobCreate(method=models().LoraSpec(r=0))
    assert [each.at for each in call(client, "jobs.create_job", body=bad).errors] == ["method.r"]
    body = models().PredictBody(inputs="a", model="nothing")
    unknown = call(client, "predict.predict", body=body)
    assert (type(unknown), unknown.code) == (models().PredictError, "model_not_found")
