"""Fixtures of the job tests: jobs created through the API, a fake worker, uploaded datasets."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.database.engines import Database
from app.datasets.tables import Dataset
from tests.app.jobs.fake_worker import FakeWorker

LORA: dict[str, Any] = {"method": {"type": "lora"}}
Submit = Callable[..., dict[str, Any]]
Upload = Callable[..., UUID]


@pytest.fixture
def submit(client: TestClient) -> Submit:
    """Create a job, LoRA with defaults unless overridden, and return the response."""

    def send(**fields: Any) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json={**LORA, **fields})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    return send


@pytest.fixture
def worker(database: Database) -> FakeWorker:
    return FakeWorker(database)


@pytest.fixture
def upload(database: Database) -> Upload:
    """Insert the row of a checked dataset; jobs never read the file."""

    def add(
        name: str = "mails",
        version: int = 1,
        labels: dict[str, int] | None = None,
        **profile: Any,
    ) -> UUID:
        labels = labels or {"ham": 300, "spam": 100, "unsure": 100}
        columns = {"text_column": "body", "label_column": "kind", "split_column": None}
        rows = sum(labels.values())
        profile = {
            "rows": rows, "labels": labels, "splits": {}, "duplicates": 0,
            "conflicting_duplicates": 0, "mean_characters": 440.0,
            **columns, **profile,
        }  # fmt: skip
        dataset = Dataset(
            created_by=LOCAL_KEY_ID, name=name, version=version, filename=f"{name}.csv",
            suffix=".csv", sha256="0" * 64, bytes=1, rows=rows, profile=profile,
            **{column: profile[column] for column in columns},
        )  # fmt: skip
        with database.write() as session:
            session.add(dataset)
        return dataset.id

    return add
