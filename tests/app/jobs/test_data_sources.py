"""Which data a job may read, and what is known before reading it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.tables import Dataset
from app.jobs.data_sources import lock_datasets_against_deletion
from app.queue.tables import Job
from lora_core.specs.chat import PromptFormat
from lora_core.specs.train import SelectBy, TrainSpec
from tests.job_rows import add_job
from tests.waiting import wait_for_a_waiter

Submit = Callable[..., dict[str, Any]]
Upload = Callable[..., UUID]


def refused(client: TestClient, **data: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"method": {"type": "lora"}, "data": data})
    assert answer.status_code == 422, answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def test_an_upload_is_accepted_by_name_version_and_id_and_is_pinned(
    submit: Submit, upload: Upload, database: Database
) -> None:
    first, second = upload(version=1), upload(version=2)
    for name, ref, dataset in [
        ("mails", "mails:2", second),
        ("mails:1", "mails:1", first),
        (str(first), "mails:1", first),
    ]:
        job = submit(data={"source": name})
        assert job["spec"]["data"]["source"] == ref
        with database.read() as session:
            row = session.get_one(Job, UUID(job["id"]))
        assert row.dataset_ids == {"all": str(dataset)}


def test_columns_and_labels_come_from_the_upload(submit: Submit, upload: Upload) -> None:
    upload()
    two = submit()["parameters"]
    job = submit(data={"source": "mails"})
    data = job["spec"]["data"]
    assert (data["text_column"], data["label_column"], data["split_column"]) == (
        "body",
        "kind",
        None,
    )
    assert (
        job["parameters"]["trainable"] == two["trainable"] + 385
    )  # one more row of the last layer
    assert job["parameters"]["exact"] is True
    assert submit(data=data)["spec"]["data"] == data


TARGETS = {"stars": {"type": "regression"}, "topic": {"type": "single_label"}}
SELECT_BY_ANY = {"last", "loss"}


@pytest.mark.parametrize(
    ("profile", "possible"),
    [
        ({"task": "single_label"}, {"macro_f1", "accuracy"}),
        ({"task": "multi_label"}, {"macro_f1", "accuracy"}),
        ({"task": "regression"}, {"rmse"}),
        ({"targets": TARGETS}, {"skill"}),
    ],
    ids=lambda value: "-".join(sorted(value)),
)
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_the_checkpoint_is_selected_by_a_metric_of_the_uploaded_task(
    client: TestClient, upload: Upload, profile: dict[str, Any], possible: set[str], query: str
) -> None:
    """A job without a task has that of its data, and its stored spec must be valid with it."""
    upload(**profile)
    body = {"method": {"type": "lora"}, "data": {"source": "mails"}}
    accepted = set()
    for select_by in SelectBy:
        answer = client.post(f"/v1/jobs{query}", json={**body, "stop": {"select_by": select_by}})
        if answer.is_success:
            TrainSpec.model_validate(answer.json()["spec"])
            accepted.add(select_by.value)
        else:
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (422, "select_by_unsupported")
            assert all(f"{each}" in problem["detail"] for each in possible)
    assert accepted == possible | SELECT_BY_ANY


def test_a_given_task_also_decides_what_selects_the_checkpoint(
    client: TestClient, upload: Upload
) -> None:
    upload(task="single_label")
    body = {"method": {"type": "lora"}, "data": {"source": "mails"}, "task": {"type": "regression"}}
    codes = {
        select_by: client.post("/v1/jobs", json={**body, "stop": {"select_by": select_by}}).json()
        for select_by in ("rmse", "accuracy")
    }
    assert codes["rmse"]["spec"]["stop"]["select_by"] == "rmse"
    assert codes["accuracy"]["code"] == "select_by_unsupported"


@pytest.mark.parametrize(
    ("profile", "fields", "problem"),
    [
        (
            {"task": "regression"},
            {"method": {"type": "linear", "class_weight": "balanced"}},
            "omit method.class_weight",
        ),
        ({}, {"data": {"source": "mails", "label_separator": ";"}}, "need type 'multi_label'"),
    ],
)
def test_settings_must_fit_the_task_of_the_upload(
    client: TestClient,
    upload: Upload,
    profile: dict[str, Any],
    fields: dict[str, Any],
    problem: str,
) -> None:
    upload(**profile)
    body = {"method": {"type": "lora"}, "data": {"source": "mails"}, **fields}
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "setting_unfit_for_task")
    assert problem in answer.json()["detail"]


def test_a_column_that_was_not_checked_is_rejected(client: TestClient, upload: Upload) -> None:
    upload(split_column="part", splits={"train": 400, "test": 100})
    for named in ({"text_column": "subject"}, {"label_column": "text"}, {"split_column": "fold"}):
        problem = refused(client, source="mails", **named)
        assert problem["code"] == "column_not_checked"
        assert problem["errors"][0]["at"] == f"data.{next(iter(named))}"


def test_splits_may_come_from_several_sources(
    submit: Submit, upload: Upload, database: Database
) -> None:
    train, test = upload("mails"), upload("newer-mails")
    job = submit(data={"source": {"train": "mails", "test": "newer-mails:1"}})
    assert job["spec"]["data"]["source"] == {"train": "mails:1", "test": "newer-mails:1"}
    with database.read() as session:
        row = session.get_one(Job, UUID(job["id"]))
    assert row.dataset_ids == {"train": str(train), "test": str(test)}


SPLIT = {"split_column": "split", "splits": {"train": 450, "validation": 50}}


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_named_split_column_must_have_the_split_of_each_source(
    client: TestClient, upload: Upload, query: str
) -> None:
    upload("a", **SPLIT)
    upload("b", **SPLIT)
    data = {"source": {"train": "a:1", "test": "b:1"}, "split_column": "split"}
    answer = client.post(f"/v1/jobs{query}", json={"method": {"type": "lora"}, "data": data})
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_split")
    assert "b:1" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "named_in_upload", "column"),
    [({}, False, None), ({"split_column": None}, True, None), ({}, True, "split")],
)
def test_a_source_belongs_to_its_split_as_a_whole_unless_a_split_column_is_named(
    submit: Submit,
    upload: Upload,
    database: Database,
    fields: dict[str, Any],
    named_in_upload: bool,
    column: str | None,
) -> None:
    """As in a local run. A column that was found, but not named, is not read."""
    for name in ("a", "b"):
        dataset = upload(name, **SPLIT)
        if not named_in_upload:
            with database.write() as session:
                session.get_one(Dataset, dataset).split_column = None
    size = {"train_size": 449 if column else 499, "test_size": 1}
    job = submit(data={"source": {"train": "a", "validation": "b"}, **size, **fields})
    assert job["spec"]["data"]["split_column"] == column


def test_the_splits_of_a_hub_dataset_are_unknown_before_the_run(submit: Submit) -> None:
    hub = "hub:stanfordnlp/imdb"
    submit(data={"source": {"train": hub, "validation": hub}})


def test_the_datasets_of_one_job_must_share_their_columns(
    client: TestClient, upload: Upload
) -> None:
    upload("mails")
    upload("others", text_column="text")
    problem = refused(client, source={"train": "mails", "test": "others"})
    assert problem["code"] == "columns_differ"
    assert "'body' in mails:1, 'text' in others:1" in problem["detail"]


@pytest.mark.parametrize(
    ("profile", "named"),
    [({}, {"text_column": "body"}), ({"text_column": "text", "text_pair_column": "other"}, {})],
)
def test_a_hub_dataset_is_read_by_columns_that_the_job_names(
    client: TestClient, submit: Submit, upload: Upload, profile: dict[str, Any], named: Any
) -> None:
    """Its columns are unknown, and those of an upload may have another meaning there."""
    upload(**{"label_column": "label", **profile})
    source = {"train": "hub:stanfordnlp/imdb", "test": "mails:1"}
    problem = refused(client, source=source)
    assert problem["code"] == "columns_differ"
    assert "For a hub dataset, name its columns in `data`." in problem["detail"]
    columns = named or {"text_pair_column": "other"}
    submit(data={"source": source, **columns})


@pytest.mark.parametrize(
    ("profile", "fields", "column"),
    [
        ({"text_pair_column": "text"}, {}, "body"),
        ({"text_column": "text", "text_pair_column": "other"}, {}, "other"),
        (
            {"task": "multi_label", "text_column": "text", "label_columns": ["a", "b"]},
            {"label_columns": ["a", "b"]},
            "a",
        ),
    ],
)
def test_a_sample_beside_an_upload_must_have_the_columns_that_are_read(
    client: TestClient, upload: Upload, profile: dict[str, Any], fields: Any, column: str
) -> None:
    upload(**{"text_column": "body", **profile})
    body = {
        "method": {"type": "lora"},
        "data": {"source": {"train": "rotten-tomatoes", "test": "mails:1"}, **fields},
        "task": {"type": profile.get("task", "single_label")},
    }
    problem = client.post("/v1/jobs", json=body).json()
    assert problem["code"] == "missing_column"
    assert f"rotten-tomatoes has no column '{column}'" in problem["detail"]


def test_a_sample_beside_an_upload_is_read_whatever_its_columns_are_named(
    submit: Submit, upload: Upload
) -> None:
    upload()
    submit(data={"source": {"train": "rotten-tomatoes", "test": "mails:1"}})


def test_a_dataset_with_one_class_is_rejected(client: TestClient, upload: Upload) -> None:
    upload(labels={"ham": 500})
    problem = refused(client, source="mails")
    assert (problem["code"], "'ham'" in problem["detail"]) == ("one_class", True)


def test_more_texts_than_available_are_rejected(client: TestClient, upload: Upload) -> None:
    upload()
    problem = refused(client, source="mails", train_size=400, test_size=101)
    assert problem["code"] == "too_few_rows"
    assert "400 for train" in problem["detail"]


@pytest.mark.parametrize(
    ("labels", "profile", "fields"),
    [
        ({"ham": 2, "spam": 1}, {}, {}),
        ({"ham": 50, "spam": 50}, {"duplicates": 97}, {}),  # three texts
        ({"ham": 50, "spam": 50}, {}, {"train_size": 0.8}),
        ({"ham": 50, "spam": 50}, {}, {"train_size": 1}),
        ({"ham": 50, "spam": 50}, {"splits": {"train": 6, "test": 94}}, {"validation_size": 5}),
    ],
)
def test_too_few_texts_for_the_splits_are_rejected_also_by_a_dry_run(
    client: TestClient,
    upload: Upload,
    labels: dict[str, int],
    profile: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    upload(labels=labels, **profile)
    body = {"method": {"type": "lora"}, "data": {"source": "mails", **fields}}
    for query in ("", "?dry_run=true"):
        answer = client.post(f"/v1/jobs{query}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "too_few_rows")


def test_splits_that_just_fit_are_accepted(submit: Submit, upload: Upload) -> None:
    upload(labels={"ham": 2, "spam": 2})
    submit(data={"source": "mails"})


def test_a_deleted_upload_is_not_found(
    client: TestClient, upload: Upload, database: Database
) -> None:
    dataset_id = upload()
    with database.write() as session:
        session.get_one(Dataset, dataset_id).deleted_at = now()
    for source in ("mails", "mails:1", str(dataset_id)):
        assert refused(client, source=source)["code"] == "data_not_found"


@pytest.mark.parametrize("database_kind", ["postgresql"])
class TestAtTheSameMoment:
    """On PostgreSQL, where creating a job and deleting its dataset may overlap."""

    def test_a_delete_waits_for_a_job_that_is_being_stored(
        self, client: TestClient, upload: Upload, database: Database
    ) -> None:
        dataset_id = upload()
        with database.write() as session, ThreadPoolExecutor(1) as threads:
            lock_datasets_against_deletion(session, {"all": str(dataset_id)})
            delete = threads.submit(client.delete, f"/v1/datasets/{dataset_id}")
            wait_for_a_waiter(database)
            add_job(database, dataset_ids={"all": str(dataset_id)})
            session.commit()
            assert delete.result().json()["code"] == "dataset_in_use"

    def test_a_job_waits_for_the_delete_of_its_data_and_is_rejected(
        self, client: TestClient, upload: Upload, database: Database
    ) -> None:
        dataset_id = upload()
        with database.write() as session, ThreadPoolExecutor(1) as threads:
            datasets.soft_delete_dataset(
                session, datasets.get_dataset(session, dataset_id, for_update=True)
            )
            submit = threads.submit(refused, client, source="mails")
            wait_for_a_waiter(database)
            session.commit()
            assert submit.result()["code"] == "data_not_found"


@pytest.mark.parametrize(
    "source",
    ["../../etc/passwd", "/etc/passwd", "./reviews.csv", "file:///etc/passwd", "https://host/x.csv",
     "Mails", "mails:0", "mails:1:2", "01900000-0000-7000-8000-000000000000", "hub:", "hub:../x",
     "hub:/etc/passwd", "hub:someone/else:imdb", "hub:stanfordnlp/imdb/plain_text"],
)  # fmt: skip
def test_paths_and_unknown_names_are_rejected(client: TestClient, source: str) -> None:
    assert refused(client, source=source)["code"] == "data_not_found"


def test_an_allowed_hub_dataset_is_accepted_with_assumed_labels(submit: Submit) -> None:
    for source in ("hub:stanfordnlp/imdb", "hub:stanfordnlp/imdb:plain_text"):
        job = submit(data={"source": source})
        assert job["spec"]["data"]["source"] == source
        assert job["parameters"]["exact"] is False


def test_the_prompt_format_of_the_training_data_is_that_of_the_job(
    submit: Submit, upload: Upload
) -> None:
    plain = submit(data={"source": "rotten-tomatoes"})
    assert "prompt_format" not in plain["spec"]["data"]
    stored = {"prefix": "Sort:", "answer_key": "kind"}
    upload("chats", prompt_format=stored)
    upload("others", prompt_format={"prefix": "Other:"})
    expected = PromptFormat.model_validate(stored).model_dump()
    for source in ("chats", {"train": "chats", "validation": "others"}):
        assert submit(data={"source": source})["spec"]["data"]["prompt_format"] == expected
    own = submit(data={"source": "chats", "prompt_format": {"suffix": "###"}})
    assert own["spec"]["data"]["prompt_format"] == PromptFormat(suffix="###").model_dump()


@pytest.mark.parametrize(
    "prompt_format",
    [{"prefix": "a\0"}, {"suffix": 1}, {"end": "x"}, {"prefix": "x" * 100_001}, "x"],
)
def test_an_invalid_prompt_format_is_rejected(client: TestClient, prompt_format: object) -> None:
    problem = refused(client, source="imdb", prompt_format=prompt_format)
    assert problem["code"] == "validation_failed"
    assert problem["errors"][0]["at"].startswith("data.prompt_format")


def test_windows_of_pairs_are_rejected(client: TestClient, upload: Upload) -> None:
    upload(text_pair_column="other")
    body = {"method": {"type": "linear"}, "data": {"source": "mails", "long_texts": "windows"}}
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "windows_of_pairs")
