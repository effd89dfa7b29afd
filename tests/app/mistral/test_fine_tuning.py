"""Classifier jobs and their models in the Mistral API, by the unmodified client, untrained."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from mistralai.client.models import ClassifierFineTuningJob
from sqlalchemy import select
from starlette.testclient import TestClient

from app.database.engines import Database
from app.main import create_app
from app.mistral.repository import conditions_by_status
from app.mistral.tables import MistralJobRequest
from app.queue.enums import DeviceClass
from app.queue.tables import Job
from app.queue.transitions import PermanentFailure, Succeeded
from app.registry import service as registry
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import MODEL_KIND
from lora_core.resolve_defaults import resolve_learning_rates
from lora_core.specs.train import TrainSpec
from tests.app.cli.conftest import serving
from tests.app.jobs.fake_worker import FakeWorker
from tests.app.mistral.conftest import upload
from tests.app.mistral.test_files import error_of
from tests.app.openai.fine_tunings import SUMMARY
from tests.app.test_audit import AuditLines, audit_lines
from tests.job_rows import MANIFEST, events, get_job
from tests.mistral_files import examples

__all__ = ["audit_lines"]

Create = Callable[..., ClassifierFineTuningJob]
TARGETS: list[dict[str, Any]] = [
    # This version of the client leaves all targets out if one has no weight.
    {"name": "Topic", "labels": [" billing ", "shipping"], "weight": 1},
    {"name": "flags", "labels": ["urgent", "rude"], "weight": 0.5, "loss_function": "multi_class"},
]


@pytest.fixture
def file(sdk: Any) -> str:
    return upload(sdk)


@pytest.fixture
def create(sdk: Any, file: str) -> Create:
    """Creates a job; keyword arguments are those of the client."""

    def make(**fields: Any) -> Any:
        job = sdk.fine_tuning.jobs.create(
            **{
                "model": "ministral-3b-latest",
                "job_type": "classifier",
                "training_files": [{"file_id": file, "weight": 1}],
                "hyperparameters": {},
                **fields,
            }
        )
        assert isinstance(job, ClassifierFineTuningJob)
        return job

    return make


def spec_of(database: Database, job: ClassifierFineTuningJob) -> dict[str, Any]:
    return get_job(database, UUID(job.id)).spec


def finish(database: Database, job_id: str) -> str:
    """Let the job succeed, as the next in the queue; return the name of its model."""
    worker = FakeWorker(database)
    claimed = worker.claim(DeviceClass.CPU)
    assert str(claimed.lease.job_id) == job_id
    worker.log(claimed.lease, step=1, points={"loss": 0.75})
    with database.write() as session:
        ref = ArtifactRef(f"models/{claimed.lease.job_id}", "0" * 64, bytes=1)
        artifact = artifacts.add_artifact(
            session, job_id=claimed.lease.job_id, kind=MODEL_KIND, ref=ref
        )
        registry.add_version(session, name="mails", artifact=artifact, manifest=MANIFEST)
        artifact_id = artifact.id
    worker.finish(claimed.lease, Succeeded(artifact_id, SUMMARY))
    return f"ft:classifier:minilm-l6:loraworks::{claimed.lease.job_id.hex}"


def test_a_new_job(create: Create, sdk: Any, file: str, database: Database) -> None:
    check = upload(sdk, "check.jsonl")
    job = create(suffix="My Mails", validation_files=[check])
    assert (job.object, job.job_type, job.status) == ("job", "classifier", "QUEUED")
    assert (job.model, job.suffix, job.auto_start) == ("minilm-l6", "My Mails", True)
    assert (job.training_files, job.validation_files) == ([file], [check])
    assert (job.fine_tuned_model, job.trained_tokens) == (None, None)
    row = get_job(database, UUID(job.id))
    assert (row.name, row.register_as) == ("My Mails", "my-mails")
    spec = row.spec
    assert spec["method"]["type"] == "auto"
    assert spec["data"]["source"] == {"train": "mails:1", "validation": "check:1"}
    targets = spec["task"]["targets"].items()
    assert {name: (each["type"], each["column"]) for name, each in targets} == {
        "flags": ("multi_label", "flags"), "topic": ("single_label", "Topic"),
    }  # fmt: skip


def test_details_have_targets_events_and_checkpoints(create: Create, sdk: Any) -> None:
    job = create(integrations=[{"project": "mine", "api_key": "k" * 40}])
    details = sdk.fine_tuning.jobs.get(job_id=job.id)
    assert details.job_type == "classifier"
    assert [each.model_dump() for each in details.classifier_targets] == [
        {"name": "flags", "labels": ["urgent"], "weight": 1.0, "loss_function": "multi_class"},
        {"name": "Topic", "labels": ["billing", "shipping"], "weight": 1.0,
         "loss_function": "single_class"},
    ]  # fmt: skip
    messages = " ".join(str(event.data) for event in details.events or ())
    assert "ministral-3b-latest is a model of Mistral" in messages
    assert "not sent to Weights & Biases" in messages
    assert details.checkpoints == []


def test_the_key_of_another_service_is_not_stored(
    create: Create, database: Database, client: TestClient
) -> None:
    job = create(integrations=[{"project": "mine", "api_key": "k" * 40}])
    with database.read() as session:
        stored = session.get_one(MistralJobRequest, UUID(job.id)).request
    assert "k" * 40 not in json.dumps(stored)
    assert "k" * 40 not in client.get(f"/v1/jobs/{job.id}/events").text


def test_targets_that_are_named(create: Create, sdk: Any, database: Database) -> None:
    job = create(classifier_targets=TARGETS)
    targets = spec_of(database, job)["task"]["targets"]
    assert {name: each["weight"] for name, each in targets.items()} == {"flags": 0.5, "topic": 1.0}
    details = sdk.fine_tuning.jobs.get(job_id=job.id)
    shown = [(each.name, each.weight) for each in details.classifier_targets]
    assert shown == [("Topic", 1.0), ("flags", 0.5)]
    messages = " ".join(str(event.data) for event in details.events or ())
    assert "flags: no text has the label 'rude'." in messages
    assert "billing" not in messages


def test_one_target(create: Create, sdk: Any, database: Database) -> None:
    file = upload(sdk, "one.jsonl", examples(flags=False))
    for targets in (None, TARGETS[:1]):
        job = create(training_files=[{"file_id": file}], classifier_targets=targets)
        spec = spec_of(database, job)
        assert (spec["task"]["type"], spec["data"]["label_column"]) == ("single_label", "Topic")
        details = sdk.fine_tuning.jobs.get(job_id=job.id)
        assert [each.name for each in details.classifier_targets] == ["Topic"]


def test_any_dataset_with_names_as_labels_is_a_file(
    create: Create, sdk: Any, client: TestClient
) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
    made = client.post("/v1/datasets", files={"file": ("t.csv", f"text,label\n{rows}".encode())})
    job = create(training_files=[{"file_id": made.json()["id"]}])
    details = sdk.fine_tuning.jobs.get(job_id=job.id)
    assert [each.name for each in details.classifier_targets] == ["label"]


def test_hyperparameters(create: Create, database: Database) -> None:
    job = create(
        hyperparameters={
            "learning_rate": 2e-4, "weight_decay": 0.1, "warmup_fraction": 0.2, "epochs": 3,
            "seq_len": 64,
        }
    )  # fmt: skip
    spec = spec_of(database, job)
    default = TrainSpec.model_validate({"method": {"type": "lora"}})
    rate, head_rate = resolve_learning_rates(default, 384, texts=14)
    optim = spec["optim"]
    assert (spec["method"]["type"], spec["data"]["max_length"]) == ("lora", 64)
    assert (optim["epochs"], optim["weight_decay"], optim["warmup"]) == (3, 0.1, 0.2)
    assert optim["learning_rate"] == pytest.approx(2 * rate)
    assert optim["head_learning_rate"] == pytest.approx(2 * head_rate)
    assert job.hyperparameters.epochs == 3.0
    assert job.hyperparameters.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("hyperparameters", "method", "epochs", "limited"),
    [
        ({}, "auto", None, False),
        ({"learning_rate": 1e-4}, "auto", None, False),  # what the client sends by default
        ({"seq_len": 128}, "auto", None, False),
        ({"training_steps": 1}, "lora", 1, False),  # 14 texts are one update
        ({"training_steps": 10, "learning_rate": 1e-4}, "lora", 10, False),
        ({"training_steps": 1000}, "lora", 1000, False),
        ({"training_steps": 5000}, "lora", 1000, True),
    ],
)
def test_training_steps(
    create: Create,
    database: Database,
    hyperparameters: dict[str, Any],
    method: str,
    epochs: int | None,
    limited: bool,
) -> None:
    job = create(hyperparameters=hyperparameters)
    spec = spec_of(database, job)
    assert (spec["method"]["type"], spec["optim"]["epochs"]) == (method, epochs)
    warnings = [each for each in events(database, UUID(job.id)) if each.level == "warning"]
    limits = [each.message for each in warnings if each.kind == "training_steps_limited"]
    message = "5,000 training steps would be 5,000 epochs. The job trains 1,000, the maximum."
    assert limits == [message] * limited


# -- Start, cancel, list --------------------------------------------------------------------------


def test_a_job_that_waits_for_its_start(create: Create, sdk: Any, database: Database) -> None:
    job = create(auto_start=False)
    assert (job.status, job.auto_start) == ("VALIDATED", False)
    worker = FakeWorker(database)
    with pytest.raises(AssertionError):
        worker.claim(DeviceClass.CPU)
    assert sdk.fine_tuning.jobs.start(job_id=job.id).status == "QUEUED"
    assert sdk.fine_tuning.jobs.start(job_id=job.id).status == "QUEUED"
    assert str(worker.claim(DeviceClass.CPU).lease.job_id) == job.id
    assert sdk.fine_tuning.jobs.get(job_id=job.id).status == "RUNNING"


def test_cancel(create: Create, sdk: Any, database: Database) -> None:
    queued = create()
    assert sdk.fine_tuning.jobs.cancel(job_id=queued.id).status == "CANCELLED"
    running = create()
    FakeWorker(database).claim(DeviceClass.CPU)
    assert sdk.fine_tuning.jobs.cancel(job_id=running.id).status == "CANCELLATION_REQUESTED"
    with pytest.raises(SDKError) as raised:
        sdk.fine_tuning.jobs.start(job_id=queued.id)
    assert (raised.value.status_code, error_of(raised)["code"]) == (409, "job_finished")


@pytest.mark.parametrize(
    ("code", "status"), [("one_class", "FAILED_VALIDATION"), ("out_of_memory", "FAILED")]
)
def test_failures(create: Create, sdk: Any, database: Database, code: str, status: str) -> None:
    job = create()
    worker = FakeWorker(database)
    worker.finish(worker.claim(DeviceClass.CPU).lease, PermanentFailure(code, "It failed.", {}))
    assert sdk.fine_tuning.jobs.get(job_id=job.id).status == status
    assert [each.id for each in sdk.fine_tuning.jobs.list(status=status).data or ()] == [job.id]


def test_pages_and_filters(create: Create, sdk: Any, database: Database) -> None:
    jobs = sdk.fine_tuning.jobs
    created = [create(suffix="a").id, create(model="minilm-l6").id, create(auto_start=False).id]
    ids = created[::-1]

    def listed(**wanted: Any) -> list[str]:
        page = jobs.list(**wanted)
        assert page.total == len(page.data or ())
        return [each.id for each in page.data or ()]

    page = jobs.list(page=1, page_size=2)
    assert ([each.id for each in page.data or ()], page.total) == (ids[2:], 3)
    assert listed() == ids
    assert listed(created_by_me=True) == ids
    assert listed(model="ministral-3b-latest") == [ids[0], ids[2]]
    assert listed(model="minilm-l6") == ids
    assert listed(suffix="a") == ids[2:]
    assert listed(status="VALIDATED") == ids[:1]
    assert listed(status="QUEUED") == ids[1:]
    assert listed(status="STARTED") == []
    assert listed(wandb_project="mine") == []
    now = datetime.now(UTC)
    assert listed(created_after=now - timedelta(hours=1)) == ids
    assert listed(created_before=now - timedelta(hours=1)) == []
    assert listed(created_after=datetime.min) == ids
    with database.read() as session:
        met = [
            len(session.scalars(select(Job.id).join(MistralJobRequest).where(condition)).all())
            for condition in conditions_by_status().values()
        ]
    assert sum(met) == 3


def test_jobs_of_other_routes_are_not_listed(sdk: Any, client: TestClient, file: str) -> None:
    job_id = client.post("/v1/jobs", json={"data": {"source": "mails"}}).json()["id"]
    assert sdk.fine_tuning.jobs.list().total == 0
    for unknown in (job_id, str(uuid4()), "x"):
        with pytest.raises(SDKError) as raised:
            sdk.fine_tuning.jobs.get(job_id=unknown)
        assert error_of(raised)["code"] == "fine_tuning_job_not_found"


# -- Requests that are refused --------------------------------------------------------------------


def target(**fields: Any) -> list[dict[str, Any]]:
    return [{**TARGETS[0], **fields}, TARGETS[1]]


BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({"job_type": "completion"}, 422, "job_type", "must be 'classifier'"),
    ({"model": "gpt-4"}, 404, "model", "cannot be fine-tuned"),
    ({"model": "no-such-model"}, 404, "model", "cannot be fine-tuned"),
    ({"training_files": []}, 422, "training_files", "must not be empty"),
    ({"training_files": [{"file_id": "x"}]}, 404, "training_files.0.file_id", "There is no file"),
    ({"validation_files": [str(UUID(int=0))]}, 404, "validation_files.0", "There is no file"),
    ({"classifier_targets": target(name="mood")}, 422, "classifier_targets.0.name", "Topic, flags"),
    (
        {"classifier_targets": target(labels=["billing"])}, 422, "classifier_targets.0.labels",
        "has the label 'shipping'",
    ),
    (
        {"classifier_targets": target(loss_function="multi_class")}, 422,
        "classifier_targets.0.loss_function", "is single_class",
    ),
    ({"classifier_targets": TARGETS[:1]}, 422, "classifier_targets", "Topic"),
    ({"classifier_targets": TARGETS[:1] * 2}, 422, "classifier_targets", "each name once"),
    ({"classifier_targets": target(weight=0)}, 422, "classifier_targets.0.weight", "greater"),
    ({"hyperparameters": {"epochs": 1.5}}, 422, "hyperparameters.epochs", "whole number"),
    (
        {"hyperparameters": {"epochs": 1, "training_steps": 5}}, 422, "hyperparameters.epochs",
        "left out",
    ),
    ({"hyperparameters": {"learning_rate": 0}}, 422, "hyperparameters.learning_rate", "greater"),
    ({"hyperparameters": {"seq_len": 32768}}, 422, "hyperparameters.seq_len", "8,192"),
    ({"suffix": "x" * 65}, 422, "suffix", "64"),
    (
        {"repositories": [{"name": "a", "owner": "b", "token": "c", "weight": 1}]}, 422,
        "repositories", "not supported",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "param", "words"), BAD)
def test_a_request_that_is_refused(
    create: Create, sdk: Any, fields: dict[str, Any], status: int, param: str, words: str
) -> None:
    with pytest.raises(SDKError) as raised:
        create(**fields)
    error = error_of(raised)
    assert (raised.value.status_code, error["param"]) == (status, param)
    assert words in error["message"]
    assert sdk.fine_tuning.jobs.list().total == 0


def test_weights_and_files_that_are_refused(create: Create, sdk: Any, file: str) -> None:
    one = upload(sdk, "one.jsonl", examples(flags=False))
    files = [{"file_id": file, "weight": 0.5}]
    refused: list[tuple[dict[str, Any], str, str]] = [
        ({"training_files": files}, "training_files.0.weight", "must be 1"),
        ({"training_files": [{"file_id": file}, {"file_id": one}]}, "training_files", "one file"),
        (
            {"training_files": [{"file_id": one}],
             "classifier_targets": [{**TARGETS[0], "weight": 2}]},
            "classifier_targets.0.weight", "only target",
        ),
        ({"validation_files": [one]}, "validation_files.0", "has no labels of the target 'flags'"),
    ]  # fmt: skip
    for fields, param, words in refused:
        with pytest.raises(SDKError) as raised:
            create(**fields)
        error = error_of(raised)
        assert (error["param"], words in error["message"]) == (param, True), error


def test_numbers_are_refused(create: Create, client: TestClient) -> None:
    rows = "".join(f"text {i},{i}\n" for i in range(20))
    made = client.post(
        "/v1/datasets",
        files={"file": ("t.csv", f"text,label\n{rows}".encode())},
        data={"task": "regression"},
    )
    with pytest.raises(SDKError) as raised:
        create(training_files=[{"file_id": made.json()["id"]}])
    assert error_of(raised)["code"] == "not_a_classifier_file"


# -- Models ---------------------------------------------------------------------------------------


def test_the_model_of_a_job(
    create: Create, sdk: Any, database: Database, audit_lines: AuditLines
) -> None:
    job = create()
    name = finish(database, job.id)
    done = sdk.fine_tuning.jobs.get(job_id=job.id)
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == ("SUCCESS", name, 250)
    [checkpoint] = done.checkpoints
    assert (checkpoint.step_number, checkpoint.metrics.valid_mean_token_accuracy) == (2, 0.8)
    cards = sdk.models.list().data
    assert [(card.id, card.type) for card in cards] == [(name, "fine-tuned"), ("mails:1", "base")]
    for each in (name, "mails:1"):
        card = sdk.models.retrieve(model_id=each)
        assert card.id == each
        assert card.capabilities.classification

    audit_lines()
    updated = sdk.models.update(model_id=name, name="Mails", description="of the shop")
    assert (updated.name, updated.description, updated.job) == ("Mails", "of the shop", job.id)
    assert [each.name for each in updated.classifier_targets] == ["flags", "Topic"]
    assert sdk.models.archive(model_id=name).archived is True
    assert sdk.models.update(model_id=name).archived is True
    assert sdk.models.unarchive(model_id=name).archived is False
    logged = [(each["action"], each["model"], each["fields"]) for each in audit_lines()]
    assert logged == [
        ("model_updated", "mails:1", fields)
        for fields in (["description", "name"], ["archived"], ["archived"])
    ]
    assert sdk.models.delete(model_id=name).deleted is True
    with pytest.raises(SDKError) as raised:
        sdk.models.archive(model_id=name)
    assert error_of(raised)["code"] == "fine_tuned_model_not_found"
    assert sdk.models.list().data == []


@pytest.mark.parametrize("name", ["mails", "mistral-small-latest", f"ft:a:{'0' * 32}"])
def test_unknown_models(sdk: Any, name: str) -> None:
    with pytest.raises(SDKError) as raised:
        sdk.models.retrieve(model_id=name)
    assert error_of(raised)["code"] == "model_not_found"
    with pytest.raises(SDKError) as raised:
        sdk.models.update(model_id=name, name="a")
    assert error_of(raised)["code"] == "fine_tuned_model_not_found"


def test_scopes(auth_settings: Settings, new_key: Callable[..., Any]) -> None:
    with serving(create_app(auth_settings)) as address:

        def client_with(*scopes: str) -> Any:
            return Mistral(server_url=f"{address}/mistral", api_key=new_key(*scopes).text)

        file = upload(client_with("datasets:write"))
        writer = client_with("jobs:write")
        with pytest.raises(SDKError) as raised:
            writer.fine_tuning.jobs.create(
                model="minilm-l6", training_files=[{"file_id": file}], hyperparameters={}
            )
        assert (raised.value.status_code, error_of(raised)["code"]) == (403, "scope_missing")
        assert "models:admin" in error_of(raised)["message"]
        assert client_with("jobs:read").fine_tuning.jobs.list().total == 0
