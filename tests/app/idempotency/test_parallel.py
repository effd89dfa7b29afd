"""Concurrent requests with the same key, to a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from app.auth.tables import LOCAL_KEY_ID
from app.database import postgresql
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.idempotency import service
from app.idempotency.tables import IdempotencyKey
from app.main import create_app
from app.queue.tables import Job
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.slow import on_both_databases
from tests.waiting import wait_for_a_waiter

LORA: dict[str, Any] = {"method": {"type": "lora"}}
CSV = b"text,label\n" + b"".join(
    b"text %d,%s\n" % (n, b"good bad".split()[n % 2]) for n in range(40)
)
KEY = {"Idempotency-Key": "k-1"}
Answers = list[httpx2.Response]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"log_level": "ERROR"}))


@pytest.fixture
def http(app: FastAPI) -> Iterator[httpx2.Client]:
    limits = httpx2.Limits(max_connections=60)
    with serving(app) as url, httpx2.Client(base_url=url, timeout=60, limits=limits) as client:
        yield client


def at_once(times: int, call: Callable[[int], httpx2.Response]) -> Answers:
    """Run the calls concurrently: they wait for each other before they start."""
    barrier = threading.Barrier(times)

    def one(number: int) -> httpx2.Response:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


def count(database: Database, table: type[Any]) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


@on_both_databases
def test_fifty_concurrent_posts_with_one_key_create_one_job(
    http: httpx2.Client, database: Database
) -> None:
    responses = at_once(50, lambda _: http.post("/v1/jobs", json=LORA, headers=KEY))
    first = responses[0]
    assert {response.status_code for response in responses} == {202}, first.text
    assert all(response.json() == first.json() for response in responses)
    assert {response.headers["Location"] for response in responses} == {first.headers["Location"]}
    assert sum("Idempotency-Replayed" not in response.headers for response in responses) == 1
    assert count(database, Job) == 1


@on_both_databases
def test_only_one_of_two_bodies_with_one_key_is_accepted(
    http: httpx2.Client, database: Database
) -> None:
    responses = at_once(
        10, lambda number: http.post("/v1/jobs", json={**LORA, "priority": number % 2}, headers=KEY)
    )
    assert sorted({response.status_code for response in responses}) == [202, 422]
    assert (
        len({response.json()["id"] for response in responses if response.status_code == 202}) == 1
    )
    refused = [response.json()["code"] for response in responses if response.status_code == 422]
    assert set(refused) == {"idempotency_key_reused"}
    assert count(database, Job) == 1


@on_both_databases
def test_concurrent_uploads_with_one_key_create_one_dataset(
    http: httpx2.Client, database: Database
) -> None:
    responses = at_once(
        4, lambda _: http.post("/v1/datasets", files={"file": ("mails.csv", CSV)}, headers=KEY)
    )
    assert {response.status_code for response in responses} == {201}
    assert all(response.json() == responses[0].json() for response in responses)
    assert count(database, Dataset) == 1


@on_both_databases
def test_concurrent_uploads_without_a_key_get_consecutive_versions(
    http: httpx2.Client, database: Database
) -> None:
    def upload(number: int) -> httpx2.Response:
        content = CSV + b"one more %d,good\n" % (number % 2)
        return http.post("/v1/datasets", files={"file": ("mails.csv", content)})

    responses = at_once(4, upload)
    assert {response.status_code for response in responses} <= {200, 201}
    assert {response.json()["version"] for response in responses} == {1, 2}
    assert count(database, Dataset) == 2


@pytest.mark.parametrize("database_kind", ["postgresql"])
class TestBehindAnOpenTransaction:
    """PostgreSQL only: a request can wait for the transaction of another one."""

    def test_request_waits_for_the_first_response(
        self, http: httpx2.Client, database: Database
    ) -> None:
        first = http.post("/v1/jobs", json=LORA, headers={"Idempotency-Key": "k-0"})
        with database.write() as session, ThreadPoolExecutor(1) as threads:
            saved = session.scalars(select(IdempotencyKey)).one()
            saved.key = "k-1"
            session.flush()
            second = threads.submit(http.post, "/v1/jobs", json=LORA, headers=KEY)
            wait_for_a_waiter(database)
            assert not second.done()
            session.commit()
            assert second.result().json() == first.json()
        assert count(database, Job) == 1

    def test_request_gets_409_and_a_retry_succeeds(
        self, http: httpx2.Client, database: Database
    ) -> None:
        with database.write() as session:
            session.add(
                IdempotencyKey(
                    api_key_id=LOCAL_KEY_ID, route="POST /v1/jobs", key="k-1",
                    body_sha256="0" * 64, status=0, response_body={},
                )
            )  # fmt: skip
            session.flush()
            began = time.monotonic()
            response = http.post("/v1/jobs", json=LORA, headers=KEY)
            waited = time.monotonic() - began
            session.rollback()
        assert (response.status_code, response.json()["code"]) == (409, "idempotency_in_flight")
        assert int(response.headers["Retry-After"]) >= 1
        assert (
            service.LOCK_TIMEOUT_SECONDS <= waited < postgresql.LOCK_TIMEOUT_SECONDS
        )  # with its own limit
        assert service.LOCK_TIMEOUT_SECONDS <= 5
        assert http.post("/v1/jobs", json=LORA, headers=KEY).status_code == 202
        assert count(database, Job) == 1
