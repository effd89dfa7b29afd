"""Streaming of uploads to disk: limits, hash, cleanup."""

import asyncio
import hashlib
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.testclient import TestClient

from app.datasets.errors import MalformedUpload
from app.datasets.multipart_upload import receive_upload
from app.main import create_app
from app.settings import Settings
from tests.app.datasets.conftest import REVIEWS, Upload

StoredFiles = Callable[[], list[str]]
TYPE = "multipart/form-data; boundary=b"


def part(content: str, disposition: str) -> str:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n"


FILE = part(REVIEWS, 'name="file"; filename="a.csv"')
END = "--b--\r\n"


def send(client: TestClient, body: str | bytes | Iterator[bytes], content_type: str = TYPE) -> Any:
    content = body.encode() if isinstance(body, str) else body
    return client.post("/v1/datasets", content=content, headers={"content-type": content_type})


def test_an_unwritable_directory_is_reported(client: TestClient, settings: Settings) -> None:
    settings.uploads_dir.touch()  # not a directory
    response = send(client, FILE + END)
    assert (response.status_code, response.json()["code"]) == (503, "data_folder_unusable")
    assert str(settings.data_dir) not in response.text


@pytest.mark.parametrize(
    "url",
    [
        "/v1/datasets",
        "/v1/datasets/preview",
        "/v1/models/sentiment/versions/import",
        "/openai/v1/files",
        "/mistral/v1/files",
    ],
)
def test_the_event_loop_removes_no_files(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """To free the space of a large file takes long."""
    removed_on_loop, rmtree = [], shutil.rmtree

    def record(path: Path, **options: Any) -> None:
        rmtree(path, **options)
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            removed_on_loop.append(path)

    monkeypatch.setattr(shutil, "rmtree", record)
    response = client.post(url, content=FILE, headers={"content-type": TYPE})
    assert response.is_client_error
    assert list((settings.uploads_dir / ".incoming").iterdir()) == []
    assert removed_on_loop == []


class TestUploadLimit:
    """Upload limit of 100,000 bytes."""

    @pytest.fixture
    def app(self, settings: Settings) -> FastAPI:
        return create_app(settings.model_copy(update={"max_upload_bytes": 100_000}))

    def test_a_file_at_the_limit_is_accepted(self, upload: Upload) -> None:
        content = REVIEWS + "x" * (100_000 - len(REVIEWS) - 5) + ",pos\n"
        assert upload(content).json()["bytes"] == 100_000

    def test_one_byte_above_the_limit_is_rejected(
        self, upload: Upload, stored_files: StoredFiles
    ) -> None:
        response = upload("x" * 100_001)
        assert (response.status_code, response.json()["code"]) == (413, "upload_too_large")
        assert "100000 bytes" in response.json()["detail"]
        assert stored_files() == []

    def test_a_stream_without_a_length_ends_at_the_limit(
        self, client: TestClient, stored_files: StoredFiles
    ) -> None:
        taken = 0

        def endless() -> Iterator[bytes]:
            nonlocal taken
            yield FILE.removesuffix("\r\n").encode()
            for _ in range(10_000):
                taken += 10_000
                yield b"x" * 10_000

        response = send(client, endless())
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"
        assert stored_files() == []

    def test_a_content_length_above_the_limit_is_rejected(
        self, client: TestClient, stored_files: StoredFiles
    ) -> None:
        response = send(client, b"x" * 3_000_000)
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
        assert stored_files() == []

    def test_other_routes_have_a_smaller_limit(self, client: TestClient) -> None:
        response = client.put("/v1/models/a/aliases/b", content=b" " * 2_000_001)
        assert response.status_code == 413


def test_sha256_of_the_file(client: TestClient) -> None:
    response = send(client, FILE + END)
    assert response.json()["sha256"] == hashlib.sha256(REVIEWS.encode()).hexdigest()


def test_fields_may_come_before_and_after_the_file(client: TestClient) -> None:
    named = part("films", 'name="name"')
    column = part("label", 'name="text_column"')
    response = send(client, named + FILE + column + END)
    assert (response.json()["name"], response.json()["text_column"]) == ("films", "label")


MALFORMED = {
    "no boundary": (FILE + END, "multipart/form-data"),
    "another type": ("{}", "application/json"),
    "no last boundary": (FILE, TYPE),
    "cut in the file": (FILE[: len(FILE) // 2], TYPE),
    "no parts": (END, TYPE),
    "nothing": ("", TYPE),
    "no file": (part("films", 'name="name"') + END, TYPE),
    "a field in place of the file": (part(REVIEWS, 'name="file"') + END, TYPE),
    "two files": (FILE + FILE + END, TYPE),
    "a file elsewhere": (part("x", 'name="other"; filename="a.csv"') + END, TYPE),
    "no file name": (part(REVIEWS, 'name="file"; filename=""') + END, TYPE),
    "a file name of slashes": (part(REVIEWS, 'name="file"; filename="//"') + END, TYPE),
    "the same field twice": (FILE + part("a", 'name="name"') * 2 + END, TYPE),
    "a nameless field": (FILE + part("a", "x=y") + END, TYPE),
    "a long field": (FILE + part("a" * 400_001, 'name="targets"') + END, TYPE),
    "many fields": (
        FILE + "".join(part("a", f'name="f{i}"') for i in range(17)) + END,
        TYPE,
    ),
    "no multipart at all": ("text,label\na,b\n", TYPE),
}


def test_a_malformed_upload_is_rejected(client: TestClient, stored_files: StoredFiles) -> None:
    for what, sent in MALFORMED.items():
        response = send(client, *sent)
        assert (response.status_code, response.json()["code"]) == (422, "malformed_upload"), what
        assert stored_files() == []


def test_an_invalid_field_is_reported_by_name(
    client: TestClient, upload: Upload, stored_files: StoredFiles
) -> None:
    for field, value in (
        ("name", "x" * 65),
        ("name", "a\0b"),
        ("text_column", "a\0b"),
        ("text_column", "x" * 257),
        ("color", "red"),
    ):
        response = upload(**{field: value})
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed"), value
        assert [error["at"] for error in response.json()["errors"]] == [field]
        assert stored_files() == []
    detail = upload(labels_column="stars").json()["detail"]
    assert detail == "labels_column: unknown field (did you mean label_column?)."


def digest(title: str) -> str:
    return hashlib.sha256(title.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Größe und Farbe 2026", "grosse-und-farbe-2026"),
        ("Straße & Größe!", "strasse-grosse"),
        ("../x", "x"),
        ("電影評論", "data-" + digest("電影評論")),
        ("отзывы 2024", "2024-" + digest("отзывы 2024")),
        ("x" * 60 + "電", "x" * 55 + "-" + digest("x" * 60 + "電")),
    ],
)
def test_a_name_may_be_any_text(upload: Upload, client: TestClient, title: str, name: str) -> None:
    first = upload(name=title).json()
    assert (first["title"], first["name"], first["ref"]) == (title, name, f"{name}:1")
    other = upload(REVIEWS + "one more,pos\n", name=title).json()
    assert other["ref"] == f"{name}:2"
    assert client.get(f"/v1/datasets/{name}").json() == other


def test_a_name_without_letters_and_digits_is_rejected(
    upload: Upload, stored_files: StoredFiles
) -> None:
    response = upload(name="$(/)")
    assert (response.status_code, response.json()["code"]) == (422, "name_required")
    assert stored_files() == []


def test_an_unusable_file_name_is_rejected(upload: Upload, stored_files: StoredFiles) -> None:
    for filename, code in (
        ("a.zip", "unsupported_format"),
        ("a.csv.gz", "unsupported_format"),
        ("a.pkl", "unsupported_format"),
        ("csv", "unsupported_format"),
        ("../..", "unsupported_format"),
        ("(-).csv", "name_required"),
    ):
        response = upload(filename=filename)
        assert (response.status_code, response.json()["code"]) == (422, code), filename
        assert stored_files() == []


def test_a_file_name_is_displayed_but_never_used_as_a_path(
    upload: Upload, stored_files: StoredFiles
) -> None:
    ids = []
    for filename, shown, name in (
        ("../../etc/films.csv", "films.csv", "films"),
        ("C:\\data\\movies.csv", "movies.csv", "movies"),
        ("fi\x1b[31mlms.csv", "fi[31mlms.csv", "fi-31mlms"),
        ("x" * 300 + ".csv", "x" * 251 + ".csv", "x" * 64),
        ("Amélie.csv", "Amélie.csv", "amelie"),
        ("電影.csv", "電影.csv", "data-" + digest("電影")),
    ):
        dataset = upload(filename=filename).json()
        assert (dataset["filename"], dataset["name"]) == (shown, name)
        ids.append(dataset["id"])
    assert stored_files() == sorted(f"{made}.csv" for made in ids)


def test_a_full_disk_is_reported_and_leaves_no_files(
    upload: Upload, stored_files: StoredFiles
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))  # simulates a full disk
    try:
        response = upload("x" * 4_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (response.status_code, response.json()["code"]) == (507, "disk_full")
    assert stored_files() == []


def test_a_disconnect_ends_the_upload(tmp_path: Path) -> None:
    messages = iter(
        [
            {"type": "http.request", "body": FILE.encode()[:200], "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def next_message() -> Any:
        return next(messages)

    scope = {"type": "http", "headers": [(b"content-type", TYPE.encode())]}
    with pytest.raises(MalformedUpload, match="connection ended"):
        asyncio.run(
            receive_upload(Request(scope, next_message), path=tmp_path / "file", limit=10**6)
        )
