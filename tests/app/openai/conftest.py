"""Fixtures: the unmodified OpenAI client, and models for it."""

from collections.abc import Callable, Iterator
from itertools import count
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from openai import OpenAI
from sqlalchemy import select

from app.auth.tables import LOCAL_KEY_ID
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.openai import ids
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


@pytest.fixture
def add_dataset(database: Database) -> Callable[[], str]:
    """Inserts the row of a dataset; returns the id of its file."""

    def add() -> str:
        version = next(versions)
        columns = {"text_column": "text", "label_column": "label", "split_column": None}
        profile = {
            "rows": 20, "labels": {"a": 10, "b": 10}, "splits": {}, "duplicates": 0,
            "conflicting_duplicates": 0, "mean_characters": 40.0,
            "prompt_format": {"prefix": "Rate:"}, **columns,
        }  # fmt: skip
        dataset = Dataset(
            created_by=LOCAL_KEY_ID, name="films", version=version, filename="films.jsonl",
            suffix=".jsonl", sha256="0" * 64, bytes=1, rows=20, profile=profile, **columns,
        )  # fmt: skip
        with database.write() as session:
            session.add(dataset)
        return ids.file_id(dataset.id)

    versions = count(1)
    return add


def job_of(database: Database, number: int = 1) -> UUID:
    """Return the job that trained the version with this number."""
    with database.read() as session:
        job_id = session.scalar(select(ModelVersion.job_id).where(ModelVersion.number == number))
    assert job_id is not None
    return job_id
