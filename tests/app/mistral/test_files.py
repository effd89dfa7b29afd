"""Files in the Mistral API, by the unmodified client."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.app.mistral.conftest import upload
from tests.mistral_files import examples


def error_of(raised: pytest.ExceptionInfo[SDKError]) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(raised.value.body)
    return error


def test_upload_list_and_content(sdk: Any) -> None:
    content = examples()
    file = sdk.files.upload(file={"file_name": "Mails.jsonl", "content": content})
    assert (file.object, file.purpose, file.source) == ("file", "fine-tune", "upload")
    assert (file.filename, file.size_bytes, file.num_lines) == (
        "Mails.jsonl",
        len(content),
        20,
    )
    assert file.created_at > 1_700_000_000
    found = sdk.files.retrieve(file_id=file.id)
    assert (found.id, found.deleted) == (file.id, False)
    assert sdk.files.download(file_id=file.id).read() == content
    again = sdk.files.upload(
        file={"file_name": "Mails.jsonl", "content": content}, purpose="fine-tune"
    )
    assert again.id == file.id
    listed = sdk.files.list()
    assert ([each.id for each in listed.data], listed.total) == ([file.id], 1)


def test_a_file_is_a_dataset_with_its_targets(sdk: Any, client: TestClient) -> None:
    file_id = upload(sdk, "Mails.jsonl")
    dataset = client.get("/v1/datasets/mails").json()
    assert (dataset["id"], dataset["task"]) == (file_id, "several_targets")
    assert dataset["targets"] == {
        "flags": {"type": "multi_label", "column": "flags"},
        "topic": {"type": "single_label", "column": "Topic"},
    }
    one = upload(sdk, "one.jsonl", examples(flags=False))
    dataset = client.get(f"/v1/datasets/{one}").json()
    assert (dataset["task"], dataset["label_column"]) == ("single_label", "Topic")
    assert dataset["labels"] == {"billing": 10, "shipping": 10}


def test_names_that_are_no_names_of_targets(sdk: Any, client: TestClient) -> None:
    names = ("Topic (new)", "topic new", "1st", "\u4e3b\u984c")
    lines = [{"text": f"t{i}", "labels": dict.fromkeys(names, f"{i % 2}")} for i in range(8)]
    file_id = upload(sdk, "odd.jsonl", "".join(json.dumps(each) + "\n" for each in lines).encode())
    targets = client.get(f"/v1/datasets/{file_id}").json()["targets"]
    assert {key: each["column"] for key, each in targets.items()} == {
        "topic_new": "Topic (new)", "topic_new_2": "topic new", "target_1st": "1st",
        "target": "\u4e3b\u984c",
    }  # fmt: skip


def test_pages_and_filters(sdk: Any) -> None:
    ids = [upload(sdk, f"a{i}.jsonl") for i in range(3)][::-1]
    page = sdk.files.list(page=1, page_size=2)
    assert ([each.id for each in page.data], page.total) == (ids[2:], 3)
    assert [each.id for each in sdk.files.list(search="A1").data] == ids[1:2]
    assert sdk.files.list(purpose="batch").total == 0
    assert sdk.files.list(source=["repository"]).data == []
    assert len(sdk.files.list(source=["upload"], sample_type=["instruct"]).data) == 3
    assert sdk.files.list(include_total=False).total is None


def test_delete(sdk: Any) -> None:
    file_id = upload(sdk)
    deleted = sdk.files.delete(file_id=file_id)
    assert (deleted.id, deleted.deleted) == (file_id, True)
    requests: list[Callable[..., Any]] = [
        sdk.files.retrieve, sdk.files.download, sdk.files.delete,
    ]  # fmt: skip
    for request in requests:
        with pytest.raises(SDKError) as raised:
            request(file_id=file_id)
        assert raised.value.status_code == 404
        assert error_of(raised)["code"] == "file_not_found"


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b'{"prompt": "a", "completion": "one\\ntwo"}\n', "labels_missing"),
    ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n', "labels_missing"),
    ("a.jsonl", b'{"text": "a", "labels": ["b"]}\n', "labels_missing"),
    ("a.csv", b"text,label\na,b\nb,c\n", "labels_missing"),
    ("a.jsonl", b'{"text": "a", "labels": {"topic": "b"}}\n', "one_class"),
    ("a.jsonl", b'{"text": "a", "labels": {"x": 1.5}}\n', "malformed_row"),
    ("a.jsonl", examples() + b'{"text": "a", "labels": {"Topic": "b"}}\n', "missing_target"),
    ("a.jsonl", examples(flags=False) + b'{"text": "a", "labels": {}}\n', "missing_label"),
    ("a.jsonl", b"{\n", "malformed_row"),
    ("a.jsonl", b"", "empty_data"),
    ("a.txt", b"text", "unsupported_format"),
    (
        "a.jsonl",
        json.dumps({"text": "a", "labels": {f"t{i}": "x" for i in range(33)}}).encode(),
        "data_too_large",
    ),
]


@pytest.mark.parametrize(("name", "content", "code"), BAD_FILES)
def test_a_file_that_is_refused(sdk: Any, name: str, content: bytes, code: str) -> None:
    with pytest.raises(SDKError) as raised:
        upload(sdk, name, content)
    error = error_of(raised)
    assert (raised.value.status_code, error["code"]) == (422, code)
    assert name in error["message"]
    assert sdk.files.list().data == []


BAD_FORMS: list[tuple[dict[str, Any], str, str]] = [
    ({"purpose": "batch"}, "purpose", "purpose: must be 'fine-tune'."),
    ({"visibility": "user"}, "visibility", "every API key"),
    ({"expiry": 24}, "expiry", "files do not expire here"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD_FORMS)
def test_a_form_that_is_refused(sdk: Any, fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(SDKError, match=words) as raised:
        sdk.files.upload(file={"file_name": "a.jsonl", "content": examples()}, **fields)
    error = error_of(raised)
    assert (error["code"], error["param"]) == ("validation_failed", param)


def test_calls_that_are_not_offered(sdk: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: sdk.files.get_signed_url(file_id=upload(sdk)),
        lambda: sdk.classifiers.moderate(model="a", inputs="b"),
        lambda: sdk.embeddings.create(model="a", inputs="b"),
    ]
    for call in calls:
        with pytest.raises(SDKError) as raised:
            call()
        assert (raised.value.status_code, error_of(raised)["code"]) == (404, "not_found")


def test_scopes(auth_settings: Settings, new_key: Callable[..., Any]) -> None:
    with serving(create_app(auth_settings)) as address:

        def client_with(*scopes: str) -> Any:
            return Mistral(server_url=f"{address}/mistral", api_key=new_key(*scopes).text)

        file_id = upload(client_with("datasets:write"))
        reader = client_with("datasets:read")
        assert [each.id for each in reader.files.list().data] == [file_id]
        with pytest.raises(SDKError) as raised:
            upload(reader, "b.jsonl")
        assert (raised.value.status_code, error_of(raised)["code"]) == (403, "scope_missing")
        with pytest.raises(SDKError) as raised:
            Mistral(server_url=f"{address}/mistral", api_key="other").files.list()
        assert raised.value.status_code == 401


def test_a_repeated_upload_gets_the_first_response(sdk: Any) -> None:
    header = {"Idempotency-Key": "one"}
    file = {"file_name": "a.jsonl", "content": examples()}
    first = sdk.files.upload(file=file, http_headers=header)
    assert sdk.files.upload(file=file, http_headers=header) == first
