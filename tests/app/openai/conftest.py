"""Fixtures: the unmodified OpenAI client, and models for it."""

from collections.abc import Callable, Iterator
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from openai import OpenAI
from sqlalchemy import select

from app.database.engines import Database
from app.registry.tables import ModelVersion
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import publish

__all__ = ["publish"]

OpenClient = Callable[..., OpenAI]


class RequestCounter:
    """Counts the requests of a client, the retries too."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self, _: httpx2.Request) -> None:
        self.requests += 1


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """The base URL of the running application for the client."""
    with serving(app) as address:
        yield f"{address}/openai/v1"


@pytest.fixture
def counter() -> RequestCounter:
    return RequestCounter()


@pytest.fixture
def open_client(url: str, counter: RequestCounter) -> Iterator[OpenClient]:
    """Opens a client, with the options of `OpenAI`."""
    opened: list[OpenAI] = []

    def open_one(api_key: str = "none", **options: object) -> OpenAI:
        http = httpx2.Client(event_hooks={"request": [counter]})
        client = OpenAI(base_url=url, api_key=api_key, http_client=http, **options)  # type: ignore[arg-type]
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def sdk(open_client: OpenClient) -> OpenAI:
    """A client with its defaults, so that it sends a failed request up to three times."""
    return open_client()


def job_of(database: Database, number: int = 1) -> UUID:
    """Return the job that trained the version with this number."""
    with database.read() as session:
        job_id = session.scalar(select(ModelVersion.job_id).where(ModelVersion.number == number))
    assert job_id is not None
    return job_id
