"""A creating call that is sent again gets its first answer and creates nothing."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.auth import service
from app.database.clock import now
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.idempotency.tables import IdempotencyKey
from app.queue.tables import Job
from app.registry.tables import ModelVersion
from app.storage.tables import Artifact

LORA: dict[str, Any] = {"method": {"type": "lora"}}
CSV = b"text,label\n" + b"".join(
    b"text %d,%s\n" % (n, b"good bad".split()[n % 2]) for n in range(40)
)


def count(database: Database, table: type[Any]) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def submit(client: TestClient, key: str, body: dict[str, Any] = LORA, query: str = "") -> Any:
    return client.post(f"/v1/jobs{query}", json=body, headers={"Idempotency-Key": key})


def test_the_same_job_again_gets_the_first_answer(client: TestClient, database: Database) -> None:
    first, second = submit(client, "k-1"), submit(client, "k-1")
    assert first.status_code == second.status_code == 202
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json() == first.json()
    assert count(database, Job) == 1


def test_the_answer_is_the_first_one_even_when_the_job_has_moved_on(client: TestClient) -> None:
    first = submit(client, "k-1")
    client.post(f"{first.headers['Location']}/cancel")
    assert submit(client, "k-1").json() == first.json()
    assert client.get(first.headers["Location"]).json()["state"] == "cancelled"


def test_how_the_body_is_written_does_not_matter(client: TestClient, database: Database) -> None:
    client.post(
        "/v1/jobs",
        content=b'{ "priority": 1, "method":{"type":"lora"} }',
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/json"},
    )
    again = submit(client, "k-1", {**LORA, "priority": 1})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert count(database, Job) == 1


def test_another_body_under_the_same_key_is_refused(client: TestClient, database: Database) -> None:
    submit(client, "k-1")
    answer = submit(client, "k-1", {**LORA, "priority": 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert count(database, Job) == 1


def test_another_key_and_no_key_create_anew(client: TestClient, database: Database) -> None:
    submit(client, "k-1"), submit(client, "k-2")
    client.post("/v1/jobs", json=LORA), client.post("/v1/jobs", json=LORA)
    assert count(database, Job) == 4
    assert count(database, IdempotencyKey) == 2


def test_a_key_in_quotes_is_the_same_key(client: TestClient, database: Database) -> None:
    submit(client, '"a \\"b\\" \\\\"')
    assert submit(client, 'a "b" \\').headers["Idempotency-Replayed"] == "true"
    assert count(database, Job) == 1


@pytest.mark.parametrize(
    "key", ["", '""', "x" * 256, '"open', '"a"b"', '"a\\n"', "a\tb", "a\x00b", "a\x7f", "\xe9"]
)
def test_what_is_no_key_is_refused(client: TestClient, database: Database, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = client.post("/v1/jobs", json=LORA, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_invalid")
    assert count(database, Job) == 0


def test_two_keys_in_one_call_are_refused(client: TestClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    answer = client.post("/v1/jobs", json=LORA, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_invalid")


def test_the_longest_key_is_kept(client: TestClient) -> None:
    key = "x" * 255
    submit(client, key)
    assert submit(client, key).headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    "body",
    [
        {"method": {"type": "lora", "r": 385}},  # found out inside the transaction
        {**LORA, "base": "no-such-model"},  # before it
        {"method": {"type": "nothing"}},  # before the route
    ],
)
def test_a_call_that_failed_leaves_its_key_free(
    client: TestClient, database: Database, body: dict[str, Any]
) -> None:
    assert submit(client, "k-1", body).status_code == 422
    assert count(database, IdempotencyKey) == 0
    answer = submit(client, "k-1")
    assert answer.status_code == 202
    assert "Idempotency-Replayed" not in answer.headers


def test_a_dry_run_keeps_nothing(client: TestClient, database: Database) -> None:
    assert submit(client, "k-1", query="?dry_run=true").status_code == 200
    assert count(database, IdempotencyKey) == 0
    assert submit(client, "k-1").status_code == 202
    plan = submit(client, "k-1", query="?dry_run=true")
    assert "Idempotency-Replayed" not in plan.headers
    assert plan.json().keys() == {"parameters", "estimated_seconds", "queue_position", "spec"}


def test_an_expired_key_is_free_again(client: TestClient, database: Database) -> None:
    first = submit(client, "k-1")
    with database.write() as session:
        session.execute(update(IdempotencyKey).values(created_at=now() - 86_401))
        session.commit()
    second = submit(client, "k-1", {**LORA, "priority": 1})
    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]
    assert count(database, IdempotencyKey) == 1
    assert submit(client, "k-1", {**LORA, "priority": 1}).json() == second.json()


def test_each_caller_has_keys_of_its_own(
    locked_client: TestClient, new_key: Callable[..., service.NewKey], database: Database
) -> None:
    for name in ("ann", "bob"):
        headers = {
            "Authorization": f"Bearer {new_key(name=name).text}",
            "Idempotency-Key": "k-1",
        }
        answer = locked_client.post("/v1/jobs", json=LORA, headers=headers)
        assert "Idempotency-Replayed" not in answer.headers
    assert count(database, Job) == 2


def test_an_upload_again_gets_the_first_answer(client: TestClient, database: Database) -> None:
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


def test_a_version_again_gets_the_first_answer(
    client: TestClient, database: Database, finished: Callable[[], Artifact]
) -> None:
    job_id = str(finished().job_id)

    def register(name: str, job: str = job_id) -> Any:
        return client.post(
            f"/v1/models/{name}/versions",
            json={"job_id": job},
            headers={"Idempotency-Key": "k-1"},
        )

    assert register("sentiment", str(uuid4())).status_code == 409  # the key stays free
    first, second = register("sentiment"), register("sentiment")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.json() == first.json()
    assert register("other").json()["code"] == "idempotency_key_reused"
    assert count(database, ModelVersion) == 1


def test_one_key_may_serve_different_routes(
    client: TestClient, database: Database, finished: Callable[[], Artifact]
) -> None:
    submit(client, "k-1")
    answer = client.post(
        "/v1/models/sentiment/versions",
        json={"job_id": str(finished().job_id)},
        headers={"Idempotency-Key": "k-1"},
    )
    assert answer.status_code == 201
    assert count(database, IdempotencyKey) == 2
