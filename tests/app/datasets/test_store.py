"""Uploads go through the store, wherever it is, and survive its outages."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database.engines import Database
from app.datasets import files, repository
from app.main import create_app
from app.settings import Settings
from app.storage.opening import open_store
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


def test_an_upload_is_in_the_bucket_and_nowhere_else(
    upload: Upload, remote: Settings, database: Database, kept: Callable[[], list[str]]
) -> None:
    made = upload().json()
    store = open_store(remote)
    assert [file.name for file in store.files()] == [f"uploads/{made['id']}/{made['id']}.csv"]
    assert kept() == []
    with database.read() as session:
        dataset = repository.resolve(session, made["id"])
    assert files.find(remote, store, dataset).read_text() == REVIEWS


def test_a_deleted_data_set_leaves_the_bucket(
    client: TestClient, upload: Upload, remote: Settings
) -> None:
    made = upload().json()
    assert client.delete(f"/v1/datasets/{made['id']}").status_code == 204
    assert list(open_store(remote).files()) == []


def test_a_store_that_does_not_answer_takes_nothing(
    client: TestClient,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
    kept: Callable[[], list[str]],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
    answer = upload()
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert HOST not in answer.text
    assert client.get("/v1/datasets").json()["data"] == []
    assert kept() == []


def test_a_data_set_can_be_deleted_while_the_store_is_away(
    remote: Settings, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload().json()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{free_port()}")
        with TestClient(create_app(remote)) as other:
            assert other.delete(f"/v1/datasets/{made['id']}").status_code == 204
            assert other.get("/v1/datasets").json()["data"] == []
    assert len(list(open_store(remote).files())) == 1  # left to the sweep


def test_a_commit_of_which_nobody_knows_the_end_keeps_the_file(
    upload: Upload, remote: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Session.commit

    def broken(session: Session) -> None:
        commit(session)
        raise OperationalError("COMMIT", None, ConnectionError("the answer was lost"))

    with monkeypatch.context() as patch:
        patch.setattr(Session, "commit", broken)
        assert upload().status_code == 503
    with database.read() as session:
        [dataset] = repository.page(session, after=None, limit=10)
    assert files.find(remote, open_store(remote), dataset).read_text() == REVIEWS


def test_of_the_same_file_twice_at_once_one_stays(
    upload: Upload, remote: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, answers = repository.same, iter([None])

    def late(*arguments: object) -> object:
        """The first look comes before the other upload is there."""
        return next(answers, same(*arguments))  # type: ignore[arg-type]

    first = upload()
    monkeypatch.setattr(repository, "same", late)
    second = upload()
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert len(list(open_store(remote).files())) == 1
