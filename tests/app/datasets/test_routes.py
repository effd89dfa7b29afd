"""Upload, retrieval and deletion of datasets."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from dirty_equals import IsDatetime, IsStr
from fastapi import FastAPI
from sqlalchemy import delete, event
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.database.engines import Database
from app.datasets import repository
from app.main import create_app
from app.queue.enums import DeviceClass, JobState
from app.queue.tables import Job
from app.settings import Settings
from lora_core.specs.chat import PromptFormat
from tests.app.datasets.conftest import REVIEWS, Upload
from tests.job_rows import update_job
from tests.tiny_base import make_chat_examples

StoredFiles = Callable[[], list[str]]
LABELS = {"neg": 10, "pos": 10}


@pytest.mark.usefixtures("in_child")
def test_an_upload_creates_a_dataset(
    client: TestClient, upload: Upload, stored_files: StoredFiles
) -> None:
    response = upload(filename="My Reviews (1).csv")
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert dataset == {
        "id": IsStr(regex=r"[0-9a-f-]{36}"),
        "name": "my-reviews-1",
        "title": "my-reviews-1",
        "version": 1,
        "ref": "my-reviews-1:1",
        "filename": "My Reviews (1).csv",
        "sha256": IsStr(regex=r"[0-9a-f]{64}"),
        "bytes": len(REVIEWS),
        "rows": 20,
        "text_column": "text",
        "text_pair_column": None,
        "label_column": "label",
        "task": "single_label",
        "ordered": False,
        "label_separator": None,
        "label_columns": None,
        "split_column": None,
        "sheet": None,
        "labels": LABELS,
        "label_count": 2,
        "findings": {"warning": 1},
        "profile": dataset["profile"],
        "diagnosis": dataset["diagnosis"],
        "created_at": IsDatetime(iso_string=True),
    }
    assert dataset["profile"]["duplicates"] == 0
    assert stored_files() == [f"{dataset['id']}.csv"]
    listed = {name: dataset[name] for name in dataset if name not in ("profile", "diagnosis")}
    assert client.get("/v1/datasets").json() == {"data": [listed], "next": None}
    for ref in ("my-reviews-1", "my-reviews-1:1", dataset["id"]):
        assert client.get(f"/v1/datasets/{ref}").json() == dataset


def test_the_list_does_not_load_fields_that_grow_with_the_labels(
    client: TestClient, app: FastAPI, upload: Upload
) -> None:
    rows = "".join(f"text {n},label {n % 500}\n" for n in range(1100))
    uploaded = upload(f"text,label\n{rows}", "many.csv").json()
    assert len(uploaded["labels"]) == uploaded["label_count"] == 500
    statements: list[str] = []

    def sent(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(app.state.resources.database.read_engine, "before_cursor_execute", sent)
    response = client.get("/v1/datasets")
    page = client.get("/datasets")
    [listed] = response.json()["data"]
    assert listed["labels"] == dict.fromkeys(sorted(f"label {n}" for n in range(100))[:10], 3)
    assert (listed["label_count"], listed["findings"]) == (500, uploaded["findings"])
    assert len(response.content) < 1500
    assert "and 497 more" in page.text
    assert any("datasets.overview" in each for each in statements)
    assert not any("datasets.profile" in each for each in statements)


def test_download_returns_the_file_unless_it_is_damaged(
    client: TestClient, upload: Upload, settings: Settings
) -> None:
    dataset = upload(filename="My \u00fc.csv").json()
    for ref in (dataset["name"], dataset["ref"], dataset["id"]):
        response = client.get(f"/v1/datasets/{ref}/content")
        assert response.text == REVIEWS
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert "attachment" in response.headers["Content-Disposition"]
    assert client.get("/v1/datasets/none/content").json()["code"] == "dataset_not_found"
    [file] = settings.artifacts_dir.rglob("*.csv")
    file.write_bytes(b"other")
    damaged = client.get(f"/v1/datasets/{dataset['id']}/content")
    assert (damaged.status_code, damaged.json()["code"]) == (409, "dataset_damaged")
    assert "Delete this version, then upload the file again." in damaged.json()["detail"]
    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    again = upload(filename="My \u00fc.csv").json()
    assert client.get(f"/v1/datasets/{again['id']}/content").text == REVIEWS


def test_columns_and_name_from_the_form(upload: Upload) -> None:
    """The other formats are tested in test_row_pages.py."""
    content = REVIEWS.replace("text,label", "review,stars").encode()
    fields = {"text_column": "review", "label_column": "stars", "name": "films"}
    response = upload(content, "a.CSV", **fields)
    assert (response.status_code, response.json()["name"]) == (201, "films")
    assert response.json()["text_column"] == "review"
    assert response.json()["labels"] == LABELS


def test_a_split_column_is_found_and_counted(upload: Upload) -> None:
    rows = [
        f"film {i},{'pos' if i % 2 else 'neg'},{('train', 'test')[i % 3 == 0]}" for i in range(24)
    ]
    dataset = upload("text,label,split\n" + "\n".join(rows)).json()
    assert dataset["split_column"] == "split"
    assert dataset["profile"]["splits"] == {"train": 16, "test": 8}


def test_uploading_the_same_file_returns_the_existing_version(
    upload: Upload, stored_files: StoredFiles
) -> None:
    first = upload()
    again = upload()
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert len(stored_files()) == 1
    assert upload(name="other").json()["ref"] == "other:1"
    assert upload(text_column="label", label_column="label").status_code == 201


def test_concurrent_uploads_of_a_file_are_stored_once(
    upload: Upload, stored_files: StoredFiles
) -> None:
    with ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(lambda _: upload(), range(2)))
    assert sorted(response.status_code for response in responses) == [200, 201]
    assert responses[0].json() == responses[1].json()
    assert len(stored_files()) == 1


def test_versions_count_per_name_and_are_never_reused(client: TestClient, upload: Upload) -> None:
    refs = []
    for extra in ("a", "b", "c"):
        dataset = upload(f"{REVIEWS}{extra},pos\n").json()
        refs.append(dataset["ref"])
        if extra == "b":
            assert client.get("/v1/datasets/a").json()["ref"] == "a:2"
            assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
            assert client.get("/v1/datasets/a").json()["ref"] == "a:1"
    assert refs == ["a:1", "a:2", "a:3"]


def test_a_deleted_dataset_is_not_found(
    client: TestClient, upload: Upload, stored_files: StoredFiles
) -> None:
    dataset = upload().json()
    url = f"/v1/datasets/{dataset['id']}"
    assert client.delete(url).status_code == 204
    assert stored_files() == []
    for gone in (client.delete(url), client.get(url), client.get("/v1/datasets/a")):
        assert (gone.status_code, gone.json()["code"]) == (404, "dataset_not_found")
    assert client.get("/v1/datasets").json()["data"] == []
    assert upload().json()["ref"] == "a:2"


def test_delete_by_name(client: TestClient, upload: Upload) -> None:
    upload()
    assert client.delete("/v1/datasets/a:2").status_code == 404
    assert client.delete("/v1/datasets/a:1").status_code == 204
    assert client.delete("/v1/datasets/a").json()["code"] == "dataset_not_found"


def _job(dataset_id: str, state: JobState) -> Job:
    running, final = state is JobState.RUNNING, state.final
    return Job(
        created_by=LOCAL_KEY_ID,
        user_metadata={},
        method="lora",
        device_class=DeviceClass.CPU,
        spec={},
        spec_version=2,
        dataset_ids={"all": dataset_id},
        base="minilm-l6",
        state=state,
        worker="w" if running else None,
        finished_at=1.0 if final else None,
    )


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_a_job_that_goes_back_to_the_queue_is_counted(database: Database) -> None:
    dataset_id = uuid4()
    running = _job(str(dataset_id), JobState.RUNNING)
    with database.write() as session:
        session.add(running)

    def requeue(*_: Any) -> None:
        update_job(database, running.id, state=JobState.QUEUED, worker=None)

    with database.write() as session:
        event.listen(session.connection(), "after_cursor_execute", requeue)
        assert repository.count_active_jobs(session, dataset_id) == 1


def test_a_dataset_in_use_cannot_be_deleted(
    client: TestClient, upload: Upload, database: Database, stored_files: StoredFiles
) -> None:
    dataset, other = upload().json(), upload(name="other").json()
    url = f"/v1/datasets/{dataset['id']}"
    open_states = [state for state in JobState if not state.final]
    for state in open_states:
        with database.write() as session:
            session.execute(delete(Job))
            session.add(_job(dataset["id"], state))
        refused = client.delete(url)
        assert (refused.status_code, refused.json()["code"]) == (409, "dataset_in_use"), state
    assert f"{dataset['id']}.csv" in stored_files()
    assert client.delete(f"/v1/datasets/{other['id']}").status_code == 204
    with database.write() as session:
        session.execute(delete(Job))
        session.add_all(_job(dataset["id"], state) for state in JobState if state.final)
    assert client.delete(url).status_code == 204


def test_an_unknown_dataset_is_not_found(client: TestClient, upload: Upload) -> None:
    upload()
    for ref in ("b", "a:0", "a:99", str(uuid4()), str(UUID(int=0)), "A", "%2e%2e%5cx", "a%00", "é"):
        response = client.get(f"/v1/datasets/{ref}")
        assert (response.status_code, response.json()["code"]) == (404, "dataset_not_found"), ref


def test_pagination(client: TestClient, upload: Upload) -> None:
    for name in ("one", "two", "three"):
        upload(name=name)
    first = client.get("/v1/datasets", params={"limit": 2}).json()
    assert [dataset["name"] for dataset in first["data"]] == ["three", "two"]
    second = client.get("/v1/datasets", params={"limit": 2, "after": first["next"]}).json()
    assert [dataset["name"] for dataset in second["data"]] == ["one"]


def test_too_many_rows_are_rejected(settings: Settings, stored_files: StoredFiles) -> None:
    narrow = create_app(settings.model_copy(update={"max_rows": 19}))
    with TestClient(narrow) as client:
        response = client.post("/v1/datasets", files={"file": ("a.csv", REVIEWS)})
    assert (response.status_code, response.json()["code"]) == (422, "data_too_large")
    assert "rows" in response.json()["detail"]
    assert stored_files() == []


BROKEN: dict[str, tuple[str | bytes, str, str]] = {
    "one class": ("text,label\na,x\nb,x\n", "one_class", "'x'"),
    "empty text": (f"{REVIEWS} ,pos\n", "empty_text", "21"),
    "no label": (f"{REVIEWS}film,\n", "missing_label", "21"),
    "missing column": ("review,label\na,x\nb,y\n", "missing_column", "review"),
    "quoted semicolons": ('"text;label"\n"a;x"\n', "wrong_separator", "separated by ';'"),
    "open quote": (f'{REVIEWS}"film,pos\n', "malformed_row", "row 21"),
    "extra cell": (f"{REVIEWS}a,b,c\n", "malformed_row", "row 21"),
    "Greek": (f"{REVIEWS}καλή,pos\n".encode("cp1253"), "wrong_encoding", "row 21"),
    "NUL": (f"{REVIEWS}a\0b,pos\n", "nul_byte", "row 21"),
    "empty": ("", "empty_data", "no rows"),
    "header only": ("text,label\n", "empty_data", "no rows"),
}


# Each case starts a process. All cases are covered in tests/lora_core/data.
FIRST = ("one class", "missing column", "NUL")


@pytest.mark.usefixtures("in_child")
@pytest.mark.parametrize(
    "what", [*FIRST, *(pytest.param(w, marks=pytest.mark.slow) for w in BROKEN if w not in FIRST)]
)
def test_a_broken_file_is_rejected_with_the_location(
    client: TestClient, upload: Upload, stored_files: StoredFiles, what: str
) -> None:
    content, code, location = BROKEN[what]
    response = upload(content, filename="films.csv")
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (422, code), problem
    assert location in problem["detail"]
    assert problem["detail"].startswith("films.csv")
    assert stored_files() == []
    assert client.get("/v1/datasets").json()["data"] == []


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_file_for_prediction_needs_no_labels(
    client: TestClient, upload: Upload, ending: str
) -> None:
    content = {"csv": "id,body\n1,good\n2,good\n", "jsonl": '{"body": "good"}\n{"body": "bad"}\n'}
    sent = upload(
        content[ending], f"My Mails.{ending}", purpose="predict", text_column="body"
    ).json()
    assert (sent["name"], sent["rows"]) == ("my-mails-to-predict", 2)
    assert (sent["text_column"], sent["label_column"], sent["labels"]) == ("body", None, {})
    assert client.get("/v1/datasets/my-mails-to-predict").json() == sent
    again = upload(content[ending], f"My Mails.{ending}", purpose="predict", text_column="body")
    assert (again.status_code, again.json()["id"]) == (200, sent["id"])


# The same checks; tests/lora_core/data/test_table.py covers every kind.
MORE_CASES: list[tuple[str | bytes, str, str]] = [
    ("body\na\n", "missing_column", "no column 'text'. Columns: body"),
    ('"text;n"\n"a;1"\n', "wrong_separator", "separated by ';'. Save it as .csv"),
    (b"text\na\n\x81\n", "wrong_encoding", "row 2: not valid UTF-8"),
    ("text,n\na\n", "malformed_row", "row 1: the header has 2 cells, this row has 1"),
]


@pytest.mark.parametrize(
    ("content", "code", "expected"),
    [
        ("text,n\na,1\n ,2\nb,3\n,4\n", "empty_text", "rows without text: 2 (first: 2, 4)"),
        ("text,predicted_label\na,b\n", "reserved_column", "column 'predicted_label'"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_CASES),
    ],
)
def test_an_invalid_file_for_prediction_is_rejected_with_its_rows(
    upload: Upload, stored_files: StoredFiles, content: str | bytes, code: str, expected: str
) -> None:
    refused = upload(content, purpose="predict")
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert expected in refused.json()["detail"]
    assert stored_files() == []


def test_an_unlabeled_file_cannot_be_used_for_training(client: TestClient, upload: Upload) -> None:
    upload("text\na\nb\n", purpose="predict", name="texts")
    body = {"method": {"type": "lora"}, "data": {"source": "texts"}}
    refused = client.post("/v1/jobs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "no_labels")
    assert [error["at"] for error in refused.json()["errors"]] == ["data.source"]


def test_a_file_in_chat_form_is_read_as_text_and_label(
    client: TestClient, upload: Upload, tmp_path: Path
) -> None:
    file = make_chat_examples(tmp_path / "job.jsonl", rows=20)
    dataset = upload(file, filename="job.jsonl").json()
    assert dataset["labels"] == {"bad": 10, "good": 10}
    expected = PromptFormat(prefix="Sort the review:", suffix="###", answer_key="mood")
    assert dataset["profile"]["prompt_format"] == expected.model_dump()
    findings = {each["code"]: each for each in dataset["diagnosis"]["findings"]}
    assert "'Sort the review:'" in findings["prompt_format"]["message"]
    [row] = client.get("/v1/datasets/job/rows", params={"limit": 1}).json()["data"]
    assert (row["label"], row["text"].endswith("bad 0")) == ("bad", True)
    assert not row["text"].startswith("Sort")


def test_free_text_answers_are_refused_with_their_rows(upload: Upload) -> None:
    content = "".join(
        json.dumps({"prompt": f"question {i}", "completion": f"answer {i}"}) + "\n"
        for i in range(12)
    )
    response = upload(content, filename="chat.jsonl")
    assert (response.status_code, response.json()["code"]) == (422, "free_text_answers")
    assert "first rows: 1, 2, 3" in response.json()["detail"]
    assert "chat.jsonl" in response.json()["detail"]
