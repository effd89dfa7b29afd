"""Tags and notes of jobs: set at creation or later, and used to find jobs."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.jobs import repository
from app.queue.transitions import PermanentFailure
from tests.app.jobs.fake_worker import FakeWorker
from tests.slow import MOSTLY_SQLITE, on_both_databases

Submit = Callable[..., dict[str, Any]]


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def found(client: TestClient, tag: str, **params: Any) -> list[str]:
    answer = client.get("/v1/jobs", params={"tag": tag, **params})
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


def update(client: TestClient, job: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = client.patch(f"/v1/jobs/{job['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_tags_and_notes_are_set_at_creation_and_updated_separately(
    client: TestClient, submit: Submit
) -> None:
    job = submit(tags=["Nightly", "german", "nightly "], notes="As on Monday.")
    assert (job["tags"], job["notes"]) == (["german", "nightly"], "As on Monday.")
    assert update(client, job, notes="") == job | {"notes": None}
    changed = update(client, job, tags=["b", "a"])
    assert (changed["tags"], changed["notes"]) == (["a", "b"], None)
    assert update(client, job) == changed == client.get(f"/v1/jobs/{job['id']}").json()
    assert update(client, job, notes="x" * 4000, tags=None)["tags"] == []
    assert client.get("/v1/jobs").json()["data"][0]["tags"] == []
    assert (plain := submit())["tags"] == []
    assert plain["notes"] is None


@on_both_databases
def test_a_list_is_filtered_by_the_exact_tag(client: TestClient, submit: Submit) -> None:
    submit()
    first = submit(tags=["release 1", "café", "50%", "a_b", "e-mail"], name="first")
    second = submit(tags=["release 10", "release", "cafe"], method={"type": "full"})
    assert found(client, "release 1") == [first["id"]]
    assert found(client, "RELEASE  10 ") == [second["id"]]
    assert found(client, "CAFÉ") == [first["id"]]
    assert found(client, "cafe") == [second["id"]]
    assert found(client, "50%") == found(client, "a_b") == [first["id"]]
    for tag in ("50", "%", "_", "a b", "aXb", "mail", "relea_e", "["):
        assert found(client, tag) == [], tag
    assert found(client, "release", method="full") == [second["id"]]
    assert found(client, "release", method="lora") == []
    assert found(client, "release 1", search="fir") == [first["id"]]
    assert found(client, "release 1", search="sec") == []


@on_both_databases
def test_a_page_of_a_tag_continues_where_it_stopped(
    client: TestClient, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "MAX_SCANNED", 2)
    made = [submit(tags=["rare" if n == 0 else "often"])["id"] for n in range(4)]
    submit()  # not looked at: it has no tags
    page = client.get("/v1/jobs?tag=rare").json()
    assert page["data"] == []
    page = client.get(f"/v1/jobs?tag=rare&after={page['next']}").json()
    assert [job["id"] for job in page["data"]] == [made[0]]


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"tags": ["a,b"]}, "tags.0"),
        ({"tags": ["ok", 'a"b']}, "tags.1"),
        ({"tags": ["a\\b"]}, "tags.0"),
        ({"tags": ["a\x00"]}, "tags.0"),
        ({"tags": ["a\x1bb"]}, "tags.0"),
        ({"tags": ["  "]}, "tags.0"),
        ({"tags": [""]}, "tags.0"),
        ({"tags": ["x" * 41]}, "tags.0"),
        ({"tags": [str(i) for i in range(17)]}, "tags"),
        ({"tags": "a"}, "tags"),
        ({"tags": [1]}, "tags.0"),
        ({"notes": "x" * 4001}, "notes"),
        ({"name": "b"}, "name"),
        ({"state": "failed"}, "state"),
    ],
)
def test_invalid_tags_change_nothing(
    client: TestClient, submit: Submit, body: dict[str, Any], at: str
) -> None:
    job = submit(tags=["kept"], notes="kept")
    answer = client.patch(f"/v1/jobs/{job['id']}", json={"notes": "new", **body})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["at"] == at
    assert client.get(f"/v1/jobs/{job['id']}").json() == job


def test_a_retry_keeps_tags_and_notes(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    job = submit(tags=["night"], notes="Why.")
    lease = worker.claim().lease
    worker.save(lease, step=5)
    worker.finish(lease, PermanentFailure("non_finite", "The loss is NaN."))
    assert update(client, job, notes="Why not.")["state"] == "failed"
    again = client.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (again["tags"], again["notes"]) == (["night"], "Why not.")
    assert found(client, "night") == [again["id"], job["id"]]


def test_an_unknown_job_cannot_be_updated(client: TestClient) -> None:
    answer = client.patch(f"/v1/jobs/{uuid4()}", json={"tags": []})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_the_read_scope_cannot_update(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    headers = {"Authorization": f"Bearer {new_key('jobs:read').text}"}
    answer = anonymous_client.patch(f"/v1/jobs/{uuid4()}", json={"tags": []}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
