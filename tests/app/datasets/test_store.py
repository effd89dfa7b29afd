"""Uploads with an S3 store, and outages of the store."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database.engines import Database
from app.datasets import files, repository
from app.main import create_app
from app.resources import open_store
from app.settings import Settings
from tests.app.datasets.conftest import REVIEWS, Upload
from tests.app.storage.conftest import bucket
from tests.servers import HOST, free_port

__all__ = ["bucket"]


@pytest.fixture
def remote(settings: Settings, bucket: str) -> Settings:
    return settings.model_copy(update={"store_url": f"s3://{bucket}/prefix"})


@pytest.fixture
def app(remote: Settings) -> FastAPI:
    return create_app(remote)


def test_an_upload_is_stored_in_the_bucket_only(
    upload: Upload, remote: Settings, database: Database, stored_files: Callable[[], list[str]]
) -> None:
    made = upload().json()
    store = open_store(remote)
    assert [file.name for file in store.list_files()] == [f"uploads/{made['id']}/{made['id']}.csv"]
    assert stored_files() == []
    with database.read() as session:
        dataset = repository.resolve_dataset(session, made["id"])
    assert files.fetch_file(remote, store, dataset).read_text() == REVIEWS


def test_delete_removes_the_file_from_the_bucket(
    client: TestClient, upload: Upload, remote: Settings
) -> None:
    made = upload().json()
    assert client.delete(f"/v1/datasets/{made['id']}").status_code == 204
    assert list(open_store(remote).list_files()) == []


def test_an_unreachable_store_rejects_the_upload(
    client: TestClient,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
    stored_files: Callable[[], list[str]],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
    response = upload()
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
    assert HOST not in response.text
    assert client.get("/v1/datasets").json()["data"] == []
    assert stored_files() == []


def test_a_dataset_can_be_deleted_while_the_store_is_unreachable(
    remote: Settings, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload().json()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
        with TestClient(create_app(remote)) as other:
            assert other.delete(f"/v1/datasets/{made['id']}").status_code == 204
            assert other.get("/v1/datasets").json()["data"] == []
    assert len(list(open_store(remote).list_files())) == 1  # left to garbage collection


def test_a_commit_with_unknown_outcome_keeps_the_file(
    upload: Upload, remote: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Session.commit

    def broken(session: Session) -> None:
        commit(session)
        raise OperationalError("COMMIT", None, ConnectionError("the response was lost"))

    with monkeypatch.context() as patch:
        patch.setattr(Session, "commit", broken)
        assert upload().status_code == 503
    with database.read() as session:
        [dataset] = repository.list_datasets(session, after=None, limit=10)
    assert files.fetch_file(remote, open_store(remote), dataset).read_text() == REVIEWS


def test_a_concurrent_upload_of_the_same_file_is_stored_once(
    upload: Upload, remote: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, responses = repository.find_identical, iter([None])

    def find_too_early(*arguments: object) -> object:
        """The first lookup happens before the other upload is stored."""
        return next(responses, same(*arguments))  # type: ignore[arg-type]

    first = upload()
    monkeypatch.setattr(repository, "find_identical", find_too_early)
    second = upload()
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert len(list(open_store(remote).list_files())) == 1
