"""Files in the OpenAI API, by the unmodified client."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, ConflictError, NotFoundError, OpenAI, PermissionDeniedError
from openai.types import FileObject
from starlette.testclient import TestClient

from app.database.engines import Database
from app.main import create_app
from app.openai import ids
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.app.openai.conftest import RequestCounter
from tests.app.openai.fine_tunings import examples, finish, upload_examples
from tests.tiny_base import make_chat_examples

CSV = b"text,label\n" + b"".join(
    f"film {i} was {word},{word}\n".encode() for i in range(10) for word in ("good", "bad")
)


def test_upload_and_content(sdk: OpenAI, tmp_path: Path) -> None:
    path = make_chat_examples(tmp_path / "job.jsonl", rows=20)
    with path.open("rb") as opened:
        file = sdk.files.create(file=opened, purpose="fine-tune")
    FileObject.model_validate(file.model_dump(), strict=True)
    assert file.id.startswith("file-")
    assert (file.object, file.purpose, file.status) == ("file", "fine-tune", "processed")
    assert (file.filename, file.bytes) == ("job.jsonl", path.stat().st_size)
    assert file.created_at > 1_700_000_000
    assert sdk.files.retrieve(file.id) == file
    assert sdk.files.wait_for_processing(file.id) == file
    assert sdk.files.content(file.id).read() == path.read_bytes()
    with path.open("rb") as opened:
        assert sdk.files.create(file=opened, purpose="fine-tune").id == file.id


def test_a_file_is_a_dataset(sdk: OpenAI, client: TestClient) -> None:
    file = sdk.files.create(file=("Mails.csv", CSV), purpose="fine-tune")
    dataset = client.get("/v1/datasets/mails").json()
    assert dataset["id"].replace("-", "") == file.id.removeprefix("file-")
    assert dataset["labels"] == {"bad": 10, "good": 10}


def test_bytes_without_a_name_are_json_lines(sdk: OpenAI) -> None:
    file = sdk.files.create(file=examples(), purpose="fine-tune")
    assert file.filename == "upload.jsonl"
    assert sdk.files.content(file.id).read() == examples()
    stream = sdk.files.create(file=io.BytesIO(examples()), purpose="fine-tune")
    assert stream.id == file.id
    with pytest.raises(BadRequestError) as raised:
        sdk.files.create(file=CSV, purpose="fine-tune")
    assert raised.value.code == "malformed_row"


def test_delete(sdk: OpenAI) -> None:
    file = sdk.files.create(file=("a.csv", CSV), purpose="fine-tune")
    deleted = sdk.files.delete(file.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (file.id, "file", True)
    for request in (sdk.files.retrieve, sdk.files.content, sdk.files.delete):
        with pytest.raises(NotFoundError) as raised:
            request(file.id)
        assert raised.value.code == "file_not_found"
    assert sdk.files.list().data == []


def test_a_file_in_use_is_kept(sdk: OpenAI, counter: RequestCounter) -> None:
    file = upload_examples(sdk)
    sdk.fine_tuning.jobs.create(model="minilm-l6", training_file=file)
    before = counter.requests
    with pytest.raises(ConflictError) as raised:
        sdk.files.delete(file)
    assert raised.value.code == "dataset_in_use"
    assert counter.requests == before + 1  # not repeated
    assert sdk.files.retrieve(file).id == file


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_files_and_results(
    sdk: OpenAI, database: Database, counter: RequestCounter, order: Any
) -> None:
    expected = [upload_examples(sdk, f"a{i}.jsonl") for i in range(3)]
    jobs = [sdk.fine_tuning.jobs.create(model="minilm-l6", training_file=expected[0]) for _ in "ab"]
    for job in jobs:
        finish(database, job.id)
    results = [sdk.fine_tuning.jobs.retrieve(job.id).result_files[0] for job in jobs]
    expected += results
    expected.append(upload_examples(sdk, "last.jsonl"))
    if order == "desc":
        expected.reverse()
        results.reverse()
    assert [file.id for file in sdk.files.list(order=order)] == expected
    before = counter.requests
    assert [file.id for file in sdk.files.list(limit=2, order=order)] == expected
    assert counter.requests == before + 3
    page = sdk.files.list(limit=4, order=order)
    assert (page.first_id, page.last_id) == (expected[0], expected[3])  # type: ignore[attr-defined]
    assert page.has_more
    purposes = {"fine-tune-results": results, "batch": []}
    purposes["fine-tune"] = [each for each in expected if each not in results]
    for purpose, wanted in purposes.items():
        assert [file.id for file in sdk.files.list(purpose=purpose, order=order)] == wanted


def test_a_page_has_at_most_a_hundred_files(sdk: OpenAI, add_dataset: Callable[[], str]) -> None:
    expected = [add_dataset() for _ in range(101)]
    page = sdk.files.list(limit=10_000)
    assert len(page.data) == 100
    assert page.has_more
    assert [file.id for file in page] == expected[::-1]


def test_the_results_of_a_job(sdk: OpenAI, database: Database) -> None:
    job = sdk.fine_tuning.jobs.create(model="minilm-l6", training_file=upload_examples(sdk))
    name = ids.result_file_id(ids.parse_job_id(job.id))  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        sdk.files.retrieve(name)
    finish(database, job.id)
    file = sdk.files.retrieve(name)
    FileObject.model_validate(file.model_dump(), strict=True)
    assert file.purpose == "fine-tune-results"
    content = sdk.files.content(name).read()
    assert len(content) == file.bytes
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert rows == [
        {"step": "1", "train_loss": "0.75", "train_accuracy": "", "valid_loss": "",
         "valid_mean_token_accuracy": ""},
        {"step": "2", "train_loss": "0.5", "train_accuracy": "0.9", "valid_loss": "0.25",
         "valid_mean_token_accuracy": "0.8"},
    ]  # fmt: skip
    with pytest.raises(BadRequestError) as raised:
        sdk.files.delete(name)
    assert raised.value.code == "file_not_deletable"


BAD_FORMS: list[tuple[dict[str, Any], str, str]] = [
    ({"purpose": "assistants"}, "purpose", "must be 'fine-tune'"),
    (
        {"purpose": "fine-tune", "expires_after": {"anchor": "created_at", "seconds": 3600}},
        "expires_after[anchor]",
        "files do not expire here",
    ),
    ({"purpose": "fine-tune", "extra_body": {"color": "red"}}, "color", "unknown field"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD_FORMS)
def test_a_form_that_is_refused(
    sdk: OpenAI, counter: RequestCounter, fields: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(BadRequestError, match=words) as raised:
        sdk.files.create(file=("a.csv", CSV), **fields)
    assert (raised.value.code, raised.value.param) == ("validation_failed", param)
    assert counter.requests == 1
    assert sdk.files.list().data == []


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b'{"messages": []}\n', "malformed_row"),
    ("a.jsonl", b'{"prompt": "a"}\n', "missing_column"),
    ("a.jsonl", b"{\n", "malformed_row"),
    ("a.jsonl", b"", "empty_data"),
    ("a.txt", b"text", "unsupported_format"),
    ("a.jsonl", b'{"prompt": "a", "completion": "one\\ntwo"}\n', "free_text_answers"),
    ("a.jsonl", b'{"prompt": "a", "completion": "one"}\n', "one_class"),
]


@pytest.mark.parametrize(("filename", "content", "code"), BAD_FILES)
def test_a_file_that_is_refused(sdk: OpenAI, filename: str, content: bytes, code: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        sdk.files.create(file=(filename, content), purpose="fine-tune")
    assert raised.value.code == code
    assert filename in raised.value.message


@pytest.mark.parametrize("after", ["file-1", "ftjob-" + "0" * 32, "x"])
def test_after_must_be_the_id_of_a_file(sdk: OpenAI, after: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        sdk.files.list(after=after)
    assert (raised.value.code, raised.value.param) == ("invalid_after", "after")


@pytest.mark.parametrize("limit", [0, 10_001])
def test_limits_outside_of_the_range(sdk: OpenAI, limit: int) -> None:
    with pytest.raises(BadRequestError) as raised:
        sdk.files.list(limit=limit)
    assert raised.value.param == "limit"


@pytest.mark.parametrize("name", ["file-x", "x", f"file-{'0' * 32}", f"file-result-{'0' * 32}"])
def test_unknown_file(sdk: OpenAI, name: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        sdk.files.retrieve(name)
    assert raised.value.code == "file_not_found"


def test_a_file_without_labels_is_no_file_for_fine_tuning(sdk: OpenAI, client: TestClient) -> None:
    response = client.post(
        "/v1/datasets", files={"file": ("p.csv", CSV)}, data={"purpose": "predict"}
    )
    assert sdk.files.list().data == []
    with pytest.raises(NotFoundError):
        sdk.files.retrieve(f"file-{response.json()['id'].replace('-', '')}")


def test_scopes(database: Database, auth_settings: Settings, new_key: Callable[..., Any]) -> None:
    with serving(create_app(auth_settings)) as address:

        def client_with(*scopes: str) -> OpenAI:
            return OpenAI(base_url=f"{address}/openai/v1", api_key=new_key(*scopes).text)

        with client_with() as everything:
            file = upload_examples(everything)
            job = everything.fine_tuning.jobs.create(model="minilm-l6", training_file=file)
            finish(database, job.id)
            [results] = everything.fine_tuning.jobs.retrieve(job.id).result_files
        with client_with("datasets:read") as reader:
            assert [each.id for each in reader.files.list()] == [file]
            for refused in (
                lambda: upload_examples(reader, "other.jsonl"),
                lambda: reader.files.delete(file),
                lambda: reader.files.retrieve(results),
                lambda: reader.files.content(results),
            ):
                with pytest.raises(PermissionDeniedError):
                    refused()
        with client_with("datasets:read", "jobs:read") as reader:
            assert [each.id for each in reader.files.list()] == [results, file]


def test_a_repeated_upload_gets_the_first_response(sdk: OpenAI) -> None:
    header = {"Idempotency-Key": "one"}
    first = sdk.files.create(file=("a.csv", CSV), purpose="fine-tune", extra_headers=header)
    again = sdk.files.with_raw_response.create(
        file=("a.csv", CSV), purpose="fine-tune", extra_headers=header
    )
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.parse() == first
    with pytest.raises(BadRequestError) as raised:
        sdk.files.create(file=("b.csv", CSV), purpose="fine-tune", extra_headers=header)
    assert raised.value.code == "idempotency_key_reused"
