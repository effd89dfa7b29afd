"""A repeated request returns the first response and creates nothing."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.auth import service
from app.auth.tables import LOCAL_KEY_ID
from app.database.base import now
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.http.health import Liveness
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest, StoredResponseFound
from app.idempotency.tables import IdempotencyKey
from app.queue.tables import Job
from app.registry.tables import ModelVersion
from app.storage.tables import Artifact
from tests.slow import on_both_databases

LORA: dict[str, Any] = {"method": {"type": "lora"}}
CSV = b"text,label\n" + b"".join(
    b"text %d,%s\n" % (n, b"good bad".split()[n % 2]) for n in range(40)
)


def count(database: Database, table: type[Any]) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def submit(client: TestClient, key: str, body: dict[str, Any] = LORA, query: str = "") -> Any:
    return client.post(f"/v1/jobs{query}", json=body, headers={"Idempotency-Key": key})


@on_both_databases
def test_repeated_job_returns_the_first_response(client: TestClient, database: Database) -> None:
    first, second = submit(client, "k-1"), submit(client, "k-1")
    assert first.status_code == second.status_code == 202
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json() == first.json()
    assert count(database, Job) == 1


def test_replay_returns_the_first_response_even_if_the_job_changed(client: TestClient) -> None:
    first = submit(client, "k-1")
    client.post(f"{first.headers['Location']}/cancel")
    assert submit(client, "k-1").json() == first.json()
    assert client.get(first.headers["Location"]).json()["state"] == "cancelled"


def test_answered_request_is_known_before_any_work(database: Database) -> None:
    call = IdempotentRequest(LOCAL_KEY_ID, "POST /v1/jobs", "k-1", "0" * 64, 60.0)
    body = Liveness()
    with database.write() as session:
        idempotency.raise_if_replayed(session, call)
        idempotency.reserve(session, call)
        idempotency.save_response(session, call, status=202, body=body)
    with database.read() as session, pytest.raises(StoredResponseFound) as found:
        idempotency.raise_if_replayed(session, call)
    assert (found.value.status, found.value.body) == (202, body.model_dump())


def test_json_formatting_does_not_matter(client: TestClient, database: Database) -> None:
    client.post(
        "/v1/jobs",
        content=b'{ "priority": 1, "method":{"type":"lora"} }',
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/json"},
    )
    again = submit(client, "k-1", {**LORA, "priority": 1})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert count(database, Job) == 1


def test_different_body_with_the_same_key_is_rejected(
    client: TestClient, database: Database
) -> None:
    submit(client, "k-1")
    response = submit(client, "k-1", {**LORA, "priority": 1})
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    assert count(database, Job) == 1


def test_another_key_or_no_key_creates_another_job(client: TestClient, database: Database) -> None:
    submit(client, "k-1"), submit(client, "k-2")
    client.post("/v1/jobs", json=LORA), client.post("/v1/jobs", json=LORA)
    assert count(database, Job) == 4
    assert count(database, IdempotencyKey) == 2


def test_quoted_key_equals_the_bare_key(client: TestClient, database: Database) -> None:
    submit(client, '"a \\"b\\" \\\\"')
    assert submit(client, 'a "b" \\').headers["Idempotency-Replayed"] == "true"
    assert count(database, Job) == 1


@pytest.mark.parametrize(
    "key", ["", '""', "x" * 256, '"open', '"a"b"', '"a\\n"', "a\tb", "a\x00b", "a\x7f", "\xe9"]
)
def test_invalid_keys_are_rejected(client: TestClient, database: Database, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    response = client.post("/v1/jobs", json=LORA, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_invalid")
    assert count(database, Job) == 0


def test_two_keys_in_one_request_are_rejected(client: TestClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    response = client.post("/v1/jobs", json=LORA, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_invalid")


def test_key_of_maximum_length_is_accepted(client: TestClient) -> None:
    key = "x" * 255
    submit(client, key)
    assert submit(client, key).headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    "body",
    [
        {"method": {"type": "lora", "r": 385}},  # rejected inside the transaction
        {**LORA, "base": "no-such-model"},  # rejected before the transaction
        {"method": {"type": "nothing"}},  # rejected before the route
    ],
)
def test_failed_request_does_not_use_up_its_key(
    client: TestClient, database: Database, body: dict[str, Any]
) -> None:
    assert submit(client, "k-1", body).status_code == 422
    assert count(database, IdempotencyKey) == 0
    response = submit(client, "k-1")
    assert response.status_code == 202
    assert "Idempotency-Replayed" not in response.headers


def test_dry_run_stores_nothing(client: TestClient, database: Database) -> None:
    assert submit(client, "k-1", query="?dry_run=true").status_code == 200
    assert count(database, IdempotencyKey) == 0
    assert submit(client, "k-1").status_code == 202
    plan = submit(client, "k-1", query="?dry_run=true")
    assert "Idempotency-Replayed" not in plan.headers
    fields = {"parameters", "estimated_seconds", "cross_validation", "queue_position", "spec"}
    assert plan.json().keys() == fields


@on_both_databases
def test_expired_key_can_be_used_again(client: TestClient, database: Database) -> None:
    first = submit(client, "k-1")
    with database.write() as session:
        session.execute(update(IdempotencyKey).values(created_at=now() - 86_401))
    second = submit(client, "k-1", {**LORA, "priority": 1})
    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]
    assert count(database, IdempotencyKey) == 1
    assert submit(client, "k-1", {**LORA, "priority": 1}).json() == second.json()


@on_both_databases
def test_keys_are_per_caller(
    anonymous_client: TestClient, new_key: Callable[..., service.CreatedKey], database: Database
) -> None:
    for name in ("ann", "bob"):
        headers = {
            "Authorization": f"Bearer {new_key(name=name).text}",
            "Idempotency-Key": "k-1",
        }
        response = anonymous_client.post("/v1/jobs", json=LORA, headers=headers)
        assert "Idempotency-Replayed" not in response.headers
    assert count(database, Job) == 2


@on_both_databases
def test_repeated_upload_returns_the_first_response(client: TestClient, database: Database) -> None:
    def upload(content: bytes, name: str, key: str = "k-1") -> Any:
        return client.post(
            "/v1/datasets",
            files={"file": ("mails.csv", content)},
            data={"name": name},
            headers={"Idempotency-Key": key},
        )

    first, second = upload(CSV, "mails"), upload(CSV, "mails")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.json() == first.json()
    for other in (upload(CSV, "letters"), upload(CSV + b"one more,good\n", "mails")):
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert upload(b"text,label\n", "broken", "k-2").status_code == 422
    assert count(database, Dataset) == count(database, IdempotencyKey) == 1


def test_repeated_upload_of_a_stored_file_returns_the_first_response(client: TestClient) -> None:
    """Also after the file was deleted, which another upload would store again."""

    def upload(name: str, **headers: str) -> Any:
        files = {"file": ("mails.csv", CSV)}
        return client.post("/v1/datasets", files=files, data={"name": name}, headers=headers)

    upload("mails")
    key = {"Idempotency-Key": "k-1"}
    stored = upload("mails", **key)
    assert stored.status_code == 200
    assert client.delete("/v1/datasets/mails:1").status_code == 204
    again = upload("mails", **key)
    assert (again.status_code, again.json()) == (200, stored.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert upload("letters", **key).json()["code"] == "idempotency_key_reused"


def test_repeated_version_returns_the_first_response(
    client: TestClient, database: Database, finished: Callable[[], Artifact]
) -> None:
    job_id = str(finished().job_id)

    def register(name: str, job: str = job_id) -> Any:
        return client.post(
            f"/v1/models/{name}/versions",
            json={"job_id": job},
            headers={"Idempotency-Key": "k-1"},
        )

    assert register("sentiment", str(uuid4())).status_code == 409  # the key is not used up
    first, second = register("sentiment"), register("sentiment")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.json() == first.json()
    assert register("other").json()["code"] == "idempotency_key_reused"
    assert count(database, ModelVersion) == 1


def test_keys_are_per_route(
    client: TestClient, database: Database, finished: Callable[[], Artifact]
) -> None:
    submit(client, "k-1")
    response = client.post(
        "/v1/models/sentiment/versions",
        json={"job_id": str(finished().job_id)},
        headers={"Idempotency-Key": "k-1"},
    )
    assert response.status_code == 201
    assert count(database, IdempotencyKey) == 2
