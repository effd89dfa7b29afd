"""Fine-tuning jobs in the OpenAI API, by the unmodified client, without a training."""

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from dirty_equals import IsInt
from openai import (
    AsyncOpenAI,
    BadRequestError,
    ConflictError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
)
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database
from app.main import create_app
from app.openai import ids
from app.queue.enums import DeviceClass
from app.queue.tables import Job
from app.queue.transitions import PermanentFailure
from app.resources import Resources
from app.settings import Settings
from lora_core.resolve_defaults import resolve_learning_rates
from lora_core.specs.train import TrainSpec
from tests.app.cli.conftest import serving
from tests.app.jobs.fake_worker import FakeWorker
from tests.app.openai.conftest import RequestCounter
from tests.app.openai.fine_tunings import examples, finish, row_id, upload_examples
from tests.job_rows import get_job
from tests.slow import slow_but
from tests.webhook_rows import create_webhook, deliveries

AUTO = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}


@pytest.fixture
def file(add_dataset: Callable[[], str]) -> str:
    """A file whose dataset is a row only: creating a job does not read it."""
    return add_dataset()


@pytest.fixture
def create(sdk: OpenAI, file: str) -> Callable[..., FineTuningJob]:
    """Creates a job of minilm-l6; keyword arguments are those of the client."""

    def make(**fields: Any) -> FineTuningJob:
        return sdk.fine_tuning.jobs.create(
            **{"model": "minilm-l6", "training_file": file, **fields}
        )

    return make


Create = Callable[..., FineTuningJob]


def spec_of(database: Database, job: FineTuningJob) -> dict[str, Any]:
    return get_job(database, row_id(job.id)).spec


def strict(model: Any) -> None:
    """Check that an object has exactly the types of the client."""
    type(model).model_validate(model.model_dump(), strict=True)


def test_a_new_job_has_every_field(create: Create, sdk: OpenAI, file: str) -> None:
    job = create(suffix="My Films", seed=7, metadata={"team": "a"}, validation_file=file)
    strict(job)
    assert job.model_dump(exclude={"method"}) == {
        "id": job.id, "object": "fine_tuning.job", "created_at": IsInt(gt=1_700_000_000),
        "model": "minilm-l6", "status": "queued", "error": None, "fine_tuned_model": None,
        "finished_at": None, "estimated_finish": None, "hyperparameters": AUTO, "seed": 7,
        "training_file": file, "validation_file": file, "result_files": [],
        "trained_tokens": None, "integrations": None, "metadata": {"team": "a"},
        "organization_id": "loraworks",
    }  # fmt: skip
    assert job.method is not None
    assert job.method.model_dump(exclude_none=True) == {
        "type": "supervised",
        "supervised": {"hyperparameters": AUTO},
    }
    assert sdk.fine_tuning.jobs.retrieve(job.id) == job


def test_it_is_a_job_of_ours(create: Create, client: TestClient, file: str) -> None:
    job = create(suffix="My Films", seed=7, metadata={"team": "a"})
    own = client.get(f"/v1/jobs/{row_id(job.id)}").json()
    assert (own["name"], own["register_as"], own["metadata"]) == (
        "My Films", "my-films", {"team": "a"},
    )  # fmt: skip
    spec = own["spec"]
    assert spec["method"]["type"] == "auto"
    assert spec["data"]["source"] == "films:1"
    assert spec["data"]["prompt_format"]["prefix"] == "Rate:"
    assert (spec["runtime"]["seed"], spec["result"]["train_metrics"]) == (7, True)


def test_without_a_suffix_the_file_names_the_model(create: Create, client: TestClient) -> None:
    job = create()
    assert client.get(f"/v1/jobs/{row_id(job.id)}").json()["register_as"] == "films"
    assert (job.seed, job.metadata) == (0, None)


def test_a_validation_file_is_the_validation_split(
    create: Create, database: Database, sdk: OpenAI
) -> None:
    job = create(validation_file=upload_examples(sdk, "check.jsonl"))
    data = spec_of(database, job)["data"]
    assert data["source"] == {"train": "films:1", "validation": "check:1"}


# -- Methods and hyperparameters ------------------------------------------------------------------


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def test_numbers_train_lora(create: Create, database: Database) -> None:
    numbers = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 2}
    expected = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 2.0}
    default = TrainSpec.model_validate({"method": {"type": "lora"}})
    rate, head_rate = resolve_learning_rates(default, 384, texts=14)
    for fields in ({"method": supervised(**numbers)}, {"hyperparameters": numbers}):
        job = create(**fields)
        spec = spec_of(database, job)
        assert spec["method"]["type"] == "lora"
        optim = {name: spec["optim"][name] for name in ("epochs", "batch_size")}
        assert optim == {"epochs": 3, "batch_size": 8}
        assert spec["optim"]["learning_rate"] == pytest.approx(2 * rate)
        assert spec["optim"]["head_learning_rate"] == pytest.approx(2 * head_rate)
        assert job.hyperparameters.model_dump() == expected


@pytest.mark.parametrize(
    ("method", "spec"),
    [
        ({"type": "supervised"}, {"type": "auto"}),
        (supervised(n_epochs="auto"), {"type": "auto"}),
        (supervised(n_epochs=2), {"type": "lora", "r": 8}),
        ({"type": "lora", "lora": {"r": 4}}, {"type": "lora", "r": 4}),
        ({"type": "lora"}, {"type": "lora", "r": 8}),
        ({"type": "baseline", "baseline": {"blocks": 1}}, {"type": "baseline", "blocks": 1}),
        ({"type": "full"}, {"type": "full"}),
        ({"type": "probe", "probe": {"C": 2.0}}, {"type": "probe", "C": 2.0}),
        ({"type": "linear", "linear": {"C": 2.0}}, {"type": "linear", "C": 2.0}),
        ({"type": "auto", "auto": {"time_budget": 60}}, {"type": "auto", "time_budget": 60}),
    ],
)
def test_methods(
    create: Create, database: Database, method: dict[str, Any], spec: dict[str, Any]
) -> None:
    job = create(method=method)
    stored = spec_of(database, job)["method"]
    assert {name: stored[name] for name in spec} == spec
    assert job.method is not None
    assert job.method.type == method["type"]
    assert job.model == ("linear" if spec["type"] == "linear" else "minilm-l6")


@pytest.mark.parametrize("deprecated", [{}, {"n_epochs": "auto"}])
def test_auto_in_the_deprecated_field_keeps_the_numbers_of_the_method(
    create: Create, database: Database, deprecated: dict[str, Any]
) -> None:
    job = create(method=supervised(n_epochs=3), hyperparameters=deprecated)
    spec = spec_of(database, job)
    assert (spec["method"]["type"], spec["optim"]["epochs"]) == ("lora", 3)
    assert job.hyperparameters.model_dump() == AUTO | {"n_epochs": 3}


def test_numbers_with_a_method_of_ours(create: Create, database: Database) -> None:
    job = create(method={"type": "full"}, hyperparameters={"n_epochs": 2})
    spec = spec_of(database, job)
    assert (spec["method"]["type"], spec["optim"]["epochs"]) == ("full", 2)


PAIRS = {f"k{i}": "v" for i in range(17)}
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"method": {"type": "dpo"}}, "method.type", "dpo learns from pairs of answers"),
    (
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}},
        "method.type",
        "use supervised",
    ),
    ({"method": {"type": "reinforcement"}}, "method.type", "learns from graders"),
    ({"method": {"type": "magic"}}, "method.type", "supervised"),
    ({"method": {"type": "lora", "lora": {"r": 0}}}, "method.lora.r", "at least 1"),
    ({"method": {"type": "lora", "lora": {"rank": 4}}}, "method.lora.rank", "unknown field"),
    (
        {"method": {"type": "full", "lora": {"r": 4}}},
        "method.lora",
        "belongs to another method than full",
    ),
    (
        {"method": supervised(n_epochs=0)},
        "method.supervised.hyperparameters.n_epochs",
        "at least 1",
    ),
    (
        {"method": supervised(batch_size="big")},
        "method.supervised.hyperparameters.batch_size",
        "auto",
    ),
    (
        {"method": supervised(learning_rate_multiplier=-1)},
        "method.supervised.hyperparameters.learning_rate_multiplier",
        "must be 'auto' or at least",
    ),
    (  # times the default rate, this is 0
        {"method": supervised(learning_rate_multiplier=5e-324)},
        "method.supervised.hyperparameters.learning_rate_multiplier",
        "must be 'auto' or at least",
    ),
    (
        {"method": {"type": "linear"}, "hyperparameters": {"n_epochs": 1}},
        "hyperparameters",
        "linear has none",
    ),
    (
        {"method": supervised(n_epochs=2), "hyperparameters": {"n_epochs": 3}},
        "hyperparameters",
        "differ from those",
    ),
    ({"suffix": "x" * 65}, "suffix", "64"),
    ({"suffix": ""}, "suffix", "empty"),
    ({"seed": -1}, "seed", "at least 0"),
    ({"metadata": PAIRS}, "metadata", "at most 16"),
    ({"metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 63}…", "64"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", "512"),
    ({"integrations": [{"type": "other"}]}, "integrations.0.type", "wandb"),
    ({"model": ""}, "model", "empty"),
    ({"model": "a\0"}, "model", "NUL"),
    ({"extra_body": {"color": "red"}}, "color", "unknown field"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD)
def test_a_request_that_is_refused(
    create: Create,
    sdk: OpenAI,
    counter: RequestCounter,
    fields: dict[str, Any],
    param: str,
    words: str,
) -> None:
    before = counter.requests
    with pytest.raises(BadRequestError) as raised:
        create(**fields)
    assert counter.requests == before + 1
    assert (raised.value.code, raised.value.param) == ("validation_failed", param)
    assert words in raised.value.message
    assert sdk.fine_tuning.jobs.list().data == []


# -- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f"file-{'0' * 32}", "file-x", "films"])
@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_an_unknown_file(create: Create, field: str, name: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        create(**{field: name})
    assert (raised.value.code, raised.value.param) == ("file_not_found", field)


def test_ten_examples_are_needed(create: Create, sdk: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="has 9 examples") as raised:
        create(training_file=upload_examples(sdk, rows=9))
    assert (raised.value.code, raised.value.param) == ("too_few_examples", "training_file")
    create(training_file=upload_examples(sdk, rows=10))


def test_files_with_other_columns_cannot_be_combined(create: Create, client: TestClient) -> None:
    csv = "body,label\n" + "".join(f"t {i},{'good' if i % 2 else 'bad'}\n" for i in range(20))
    other = client.post(
        "/v1/datasets", files={"file": ("o.csv", csv.encode())}, data={"text_column": "body"}
    ).json()
    with pytest.raises(BadRequestError) as raised:
        create(validation_file=f"file-{other['id'].replace('-', '')}")
    assert (raised.value.code, raised.value.param) == ("files_not_usable", "training_file")
    assert "'body'" in raised.value.message


# -- Models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    slow_but(["gpt-4o-mini-2024-07-18", "gpt-3.5-turbo", "babbage-002", "davinci-002", "o4-mini",
     "ft:gpt-4o-mini-2024-07-18:my-org::abc123", "ft:babbage-002:org:suffix:x"], "davinci-002",
     "ft:babbage-002:org:suffix:x"),
)  # fmt: skip
def test_in_place_of_a_model_of_openai_the_default_base_is_trained(
    create: Create, sdk: OpenAI, model: str
) -> None:
    job = create(model=model)
    assert job.model == "minilm-l6"
    [warning] = [each for each in sdk.fine_tuning.jobs.list_events(job.id) if each.level == "warn"]
    assert model in warning.message
    assert "minilm-l6 is trained in its place" in warning.message


@pytest.mark.parametrize(
    "model",
    [
        "bert",
        "org/model",
        "/etc",
        "ft",
        f"ft:minilm-l6:loraworks::{'0' * 32}",
        "a:1",
        "ada",
        f"ft:minilm-l6:loraworks:mails:{'a' * 31}",
        "gpt-mails:9",
    ],
)
def test_an_unknown_model(create: Create, model: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        create(model=model)
    assert (raised.value.code, raised.value.param) == ("fine_tuning_model_not_found", "model")
    assert "minilm-l6" in raised.value.message


def test_wandb_is_a_warning(create: Create, sdk: OpenAI) -> None:
    job = create(integrations=[{"type": "wandb", "wandb": {"project": "p"}}])
    assert job.integrations is None
    messages = [each.message for each in sdk.fine_tuning.jobs.list_events(job.id)]
    assert "Metrics are not sent to wandb." in messages


# -- Life of a job --------------------------------------------------------------------------------


def test_a_job_that_succeeds(create: Create, sdk: OpenAI, database: Database) -> None:
    job = create(suffix="My Films")
    assert sdk.fine_tuning.jobs.checkpoints.list(job.id).data == []
    finish(database, job.id)
    done = sdk.fine_tuning.jobs.retrieve(job.id)
    strict(done)
    assert done.status == "succeeded"
    assert done.finished_at is not None
    assert done.finished_at >= done.created_at
    assert done.trained_tokens == 250
    assert done.fine_tuned_model is not None
    assert done.fine_tuned_model.startswith("ft:minilm-l6:loraworks:my-films:")
    assert sdk.models.retrieve(done.fine_tuned_model).id == done.fine_tuned_model
    [checkpoint] = sdk.fine_tuning.jobs.checkpoints.list(job.id)
    FineTuningJobCheckpoint.model_validate(checkpoint.model_dump(), strict=True)
    assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model
    assert (checkpoint.fine_tuning_job_id, checkpoint.step_number) == (job.id, 2)
    assert checkpoint.metrics.model_dump() == {
        "step": 2.0, "train_loss": 0.5, "train_mean_token_accuracy": 0.9, "valid_loss": 0.25,
        "valid_mean_token_accuracy": 0.8, "full_valid_loss": 0.25,
        "full_valid_mean_token_accuracy": 0.8,
    }  # fmt: skip


def test_a_job_that_runs(create: Create, sdk: OpenAI, database: Database) -> None:
    job = create()
    FakeWorker(database).claim(DeviceClass.CPU)
    running = sdk.fine_tuning.jobs.retrieve(job.id)
    strict(running)
    assert running.status == "running"
    assert running.estimated_finish is not None
    assert running.estimated_finish >= running.created_at
    with database.write() as session:  # it waited for a day and lost an attempt of 100 s
        session.execute(update(Job).values(started_at=now() - 86_400, running_seconds=100.0))
        seconds = session.scalars(select(Job)).one().plan["estimated_seconds"]
    finish = sdk.fine_tuning.jobs.retrieve(job.id).estimated_finish
    assert finish == pytest.approx(time.time() + max(0.0, seconds - 100), abs=20)


def test_a_retry_is_a_job_of_the_api(create: Create, sdk: OpenAI, client: TestClient) -> None:
    job = create(method={"type": "linear"})
    sdk.fine_tuning.jobs.cancel(job.id)
    retry = client.post(f"/v1/jobs/{UUID(job.id.removeprefix('ftjob-'))}/retry").json()
    listed = [each.id for each in sdk.fine_tuning.jobs.list()]
    assert listed == [f"ftjob-{UUID(retry['id']).hex}", job.id]
    again = sdk.fine_tuning.jobs.retrieve(listed[0])
    assert (again.training_file, again.model) == (job.training_file, job.model)


def test_the_method_linear_uses_no_base(create: Create, sdk: OpenAI) -> None:
    job = create(model="gpt-4o-mini", method={"type": "linear"})
    [warning] = [each for each in sdk.fine_tuning.jobs.list_events(job.id) if each.level == "warn"]
    assert warning.message == (
        "The method linear trains no base model, so gpt-4o-mini is not used."
    )


@pytest.mark.parametrize(
    ("code", "fields", "param"),
    [
        ("unseen_label", [], "training_file"),
        ("unseen_label", ["validation_file"], "validation_file"),
        ("missing_label", ["validation_file"], "training_file"),
        ("nonfinite_loss", ["validation_file"], None),
    ],
)
def test_a_job_that_fails(
    create: Create,
    sdk: OpenAI,
    database: Database,
    file: str,
    code: str,
    fields: list[str],
    param: str | None,
) -> None:
    job = create(**dict.fromkeys(fields, file))
    worker = FakeWorker(database)
    worker.finish(worker.claim(DeviceClass.CPU).lease, PermanentFailure(code, "It failed.", {}))
    failed = sdk.fine_tuning.jobs.retrieve(job.id)
    strict(failed)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.model_dump() == {"code": code, "message": "It failed.", "param": param}
    assert (failed.fine_tuned_model, failed.result_files) == (None, [])
    last = next(iter(sdk.fine_tuning.jobs.list_events(job.id)))
    assert (last.level, last.message) == ("error", "It failed.")


def test_cancel(create: Create, sdk: OpenAI, database: Database) -> None:
    queued = create()
    assert sdk.fine_tuning.jobs.cancel(queued.id).status == "cancelled"
    assert sdk.fine_tuning.jobs.cancel(queued.id).status == "cancelled"
    running = create()
    FakeWorker(database).claim(DeviceClass.CPU)
    assert sdk.fine_tuning.jobs.cancel(running.id).status == "running"
    assert get_job(database, row_id(running.id)).cancel_requested_at is not None


def test_a_deleted_job_is_gone(create: Create, sdk: OpenAI, client: TestClient) -> None:
    kept, deleted = create(), create()
    sdk.fine_tuning.jobs.cancel(deleted.id)
    assert client.delete(f"/v1/jobs/{row_id(deleted.id)}").status_code == 204
    assert [job.id for job in sdk.fine_tuning.jobs.list()] == [kept.id]
    with pytest.raises(NotFoundError):
        sdk.fine_tuning.jobs.retrieve(deleted.id)


def test_a_job_outlives_its_file(create: Create, sdk: OpenAI, file: str) -> None:
    job = sdk.fine_tuning.jobs.cancel(create().id)
    sdk.files.delete(file)
    assert sdk.fine_tuning.jobs.retrieve(job.id).training_file == file


def test_pause_and_resume(
    create: Create, sdk: OpenAI, database: Database, counter: RequestCounter
) -> None:
    job = create()
    jobs = sdk.fine_tuning.jobs
    for _ in range(2):
        assert jobs.pause(job.id).status == "queued"
    strict(jobs.retrieve(job.id))
    assert jobs.list_events(job.id).data[0].message == "The job was paused in the queue."
    for _ in range(2):
        assert jobs.resume(job.id).status == "queued"
    FakeWorker(database).claim(DeviceClass.CPU)
    assert jobs.pause(job.id).status == "running"
    jobs.cancel(job.id)
    before = counter.requests
    for call in (jobs.pause, jobs.resume):
        with pytest.raises(ConflictError) as raised:
            call(job.id)
        assert raised.value.code == "job_cancelling"
    assert counter.requests == before + 2  # not repeated


# -- Lists ----------------------------------------------------------------------------------------


def test_pages_of_jobs(create: Create, sdk: OpenAI, counter: RequestCounter) -> None:
    expected = [create().id for _ in range(5)][::-1]
    page = sdk.fine_tuning.jobs.list(limit=2)
    create()  # moves no page
    before = counter.requests
    assert [job.id for job in page] == expected
    assert counter.requests == before + 2
    exact = sdk.fine_tuning.jobs.list(limit=5, after=sdk.fine_tuning.jobs.list(limit=1).data[0].id)
    assert ([job.id for job in exact.data], exact.has_more) == (expected, False)
    for job in exact.data:
        strict(job)


def test_jobs_by_metadata(create: Create, sdk: OpenAI) -> None:
    plain = create().id
    odd = {'a "b" \\ c': "ä", "key": "Value"}
    tagged = create(metadata=odd).id
    other = create(metadata={"key": "value", "empty": ""}).id
    jobs = sdk.fine_tuning.jobs

    def found(**metadata: str) -> list[str]:
        return [job.id for job in jobs.list(metadata=metadata)]

    assert found() == [other, tagged, plain]
    assert found(**odd) == found(key="Value") == found(**{'a "b" \\ c': "ä"}) == [tagged]
    assert found(key="value", empty="") == [other]
    assert found(key="x") == found(value="key") == found(missing="") == []
    assert found(**{'a "b" \\ c': "a\u0308"}) == [tagged]  # stored in the form NFC
    none = jobs.list(extra_query={"metadata": "null"})
    assert [job.id for job in none] == [plain]


@pytest.mark.parametrize(
    "query",
    [
        {"metadata": "all"},
        {"metadata": "null", "metadata[a]": "b"},
        {"metadata": PAIRS},
        {"metadata[a]": "b\0"},
        {"metadata[a\0]": "b"},
        {"metadata[]": "b"},
        {f"metadata[{'a' * 65}]": "b"},
        {"metadata[a]": "b" * 513},
    ],
)
def test_a_filter_that_is_refused(sdk: OpenAI, query: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as raised:
        sdk.fine_tuning.jobs.list(extra_query=query)
    assert (raised.value.code, raised.value.param) == ("invalid_metadata_filter", "metadata")


def test_jobs_created_elsewhere_are_not_listed(sdk: OpenAI, client: TestClient) -> None:
    job = client.post("/v1/jobs", json={"method": {"type": "linear"}}).json()
    assert sdk.fine_tuning.jobs.list().data == []
    with pytest.raises(NotFoundError) as raised:
        sdk.fine_tuning.jobs.retrieve(f"ftjob-{job['id'].replace('-', '')}")
    assert raised.value.code == "fine_tuning_job_not_found"


def test_pages_of_events(
    create: Create, sdk: OpenAI, database: Database, counter: RequestCounter
) -> None:
    job = create(model="gpt-4o")
    worker = FakeWorker(database)
    lease = worker.claim(DeviceClass.CPU).lease
    for i in range(5):
        worker.log(lease, step=i, points={"loss": 1.0})
        worker.note(lease, f"note {i}", step=i)
    events = list(sdk.fine_tuning.jobs.list_events(job.id, limit=100))
    assert [event.message for event in events[:5]] == [f"note {i}" for i in (4, 3, 2, 1, 0)]
    assert len({event.id for event in events}) == len(events) == 8
    for event in events:
        FineTuningJobEvent.model_validate(event.model_dump(), strict=True)
    page = sdk.fine_tuning.jobs.list_events(job.id, limit=3)
    worker.note(lease, "later", step=9)  # moves no page
    before = counter.requests
    assert list(page) == events
    assert counter.requests == before + 2


@pytest.mark.parametrize("name", ["ftjob-x", f"ftjob-{'0' * 32}", "x"])
def test_an_unknown_job(sdk: OpenAI, counter: RequestCounter, name: str) -> None:
    jobs = sdk.fine_tuning.jobs
    calls: list[Callable[[str], object]] = [
        *(jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume),
        *(jobs.list_events, jobs.checkpoints.list),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as raised:
            call(name)
        assert raised.value.code == "fine_tuning_job_not_found"
    assert counter.requests == len(calls)


def test_after_must_be_the_id_of_an_item(create: Create, sdk: OpenAI) -> None:
    job = create()
    jobs = sdk.fine_tuning.jobs
    calls: list[Callable[[], object]] = [
        lambda: jobs.list(after="x"),
        lambda: jobs.list_events(job.id, after=f"ftevent-{'0' * 32}-1"),
        lambda: jobs.list_events(job.id, after=ids.event_id(row_id(job.id), 1) + "x"),
        lambda: jobs.checkpoints.list(job.id, after="x"),
    ]
    for call in calls:
        with pytest.raises(BadRequestError) as raised:
            call()
        assert (raised.value.code, raised.value.param) == ("invalid_after", "after")


# -- Retries, keys, other routes ------------------------------------------------------------------


def test_a_repeated_request_creates_one_job(sdk: OpenAI, file: str) -> None:
    fields: dict[str, Any] = {"model": "gpt-4o", "training_file": file, "metadata": {"a": "b"}}
    header = {"Idempotency-Key": "one"}
    first = sdk.fine_tuning.jobs.create(**fields, extra_headers=header)
    again = sdk.fine_tuning.jobs.with_raw_response.create(**fields, extra_headers=header)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.parse() == first
    assert len(sdk.fine_tuning.jobs.list().data) == 1
    with pytest.raises(BadRequestError) as raised:
        sdk.fine_tuning.jobs.create(**fields, seed=1, extra_headers=header)
    assert raised.value.code == "idempotency_key_reused"


def test_scopes(auth_settings: Settings, new_key: Callable[..., Any]) -> None:
    with serving(create_app(auth_settings)) as address:

        def client_with(*scopes: str) -> OpenAI:
            return OpenAI(base_url=f"{address}/openai/v1", api_key=new_key(*scopes).text)

        with client_with() as everything:
            file = upload_examples(everything)
            job = everything.fine_tuning.jobs.create(model="minilm-l6", training_file=file)
        with client_with("jobs:read") as reader:
            assert reader.fine_tuning.jobs.retrieve(job.id) == job
            with pytest.raises(PermissionDeniedError):
                reader.fine_tuning.jobs.cancel(job.id)
        with client_with("jobs:write") as writer:
            with pytest.raises(PermissionDeniedError, match="models:admin"):
                writer.fine_tuning.jobs.create(model="minilm-l6", training_file=file)
            assert writer.fine_tuning.jobs.cancel(job.id).status == "cancelled"
            with pytest.raises(PermissionDeniedError):
                writer.fine_tuning.jobs.list()


@pytest.mark.anyio
async def test_the_asynchronous_client(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key="none") as client:
        file = await client.files.create(file=("a.jsonl", examples()), purpose="fine-tune")
        jobs = client.fine_tuning.jobs
        created = [
            (await jobs.create(model="minilm-l6", training_file=file.id)).id for _ in range(3)
        ]
        assert [job.id async for job in jobs.list(limit=1)] == created[::-1]
        assert (await jobs.cancel(created[0])).status == "cancelled"
        assert [each.message async for each in jobs.list_events(created[0], limit=1)] == [
            "The job was cancelled before it ran.",
            "The job was queued.",
        ]
        with pytest.raises(NotFoundError):
            await jobs.retrieve("x")


def test_routes_that_are_not_there(sdk: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        sdk.fine_tuning.checkpoints.permissions.create("ft:x", project_ids=["p"])


def test_webhooks_get_an_event_in_the_form_of_openai(
    create: Create, sdk: OpenAI, resources: Resources, client: TestClient
) -> None:
    create_webhook(resources, "https://example.com/events")
    job = create()
    sdk.fine_tuning.jobs.cancel(job.id)
    own = client.post("/v1/jobs", json={"method": {"type": "linear"}}).json()
    client.post(f"/v1/jobs/{own['id']}/cancel")
    sent = [json.loads(row.body) for row in deliveries(resources.database)]
    assert sorted(each["type"] for each in sent) == [
        "fine_tuning.job.cancelled",
        "job.cancelled",
        "job.cancelled",
    ]
    [event] = [each for each in sent if each["type"].startswith("fine_tuning")]
    assert event["data"] == {"id": job.id}
