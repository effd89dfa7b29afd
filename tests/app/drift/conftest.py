"""Fixtures: a version that was trained on a dataset, and predictions of it that are kept."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.database.engines import Database
from app.queue.enums import JobState
from app.registry.tables import ModelVersion
from tests.app.feedback.conftest import Publish, Serving, keeping, publish, serving
from tests.job_rows import SPEC, add_job
from tests.kept_predictions import add_predictions

__all__ = ["Publish", "Serving", "keeping", "publish", "serving"]

FILMS = ("plot", "actor", "scene", "camera", "script", "ending", "music", "comedy", "drama")
BILLS = ("invoice", "refund", "payment", "tariff", "account", "charge", "bank", "deadline")

Train = Callable[..., UUID]
ENDED = {"state": JobState.SUCCEEDED, "attempt": 1, "finished_at": 1.8e9}


def texts(words: Sequence[str], count: int, seed: int) -> list[str]:
    """Texts of eight words each."""
    random = Random(seed)
    return [" ".join(random.choices(words, k=8)) for _ in range(count)]


def keep(database: Database, kept: Sequence[str], **changes: Any) -> list[UUID]:
    """Insert kept predictions of these texts, all at once."""
    return add_predictions(database, [{"text": text, **changes} for text in kept])


@pytest.fixture
def train(database: Database, publish: Publish) -> Train:
    """Publishes `sentiment:1`, whose job read a source: by default 200 texts about films.

    `train(client, rows=…)` uploads a dataset; `train(source="hub:imdb")` does not.
    """

    def make(
        client: TestClient | None = None,
        *,
        rows: Sequence[str] | None = None,
        header: str = "text,label",
        source: str = "films:1",
        fields: dict[str, str] | None = None,
    ) -> UUID:
        dataset_ids = {}
        if client is not None:
            lines = rows or [
                f"{text},{('bad', 'good')[i % 2]}"
                for i, text in enumerate(texts(FILMS, 200, seed=0))
            ]
            sent = client.post(
                "/v1/datasets",
                files={"file": ("films.csv", "\n".join([header, *lines]) + "\n")},
                data={"name": "films", **(fields or {})},
            )
            assert sent.status_code == 201, sent.text
            dataset_ids = {"all": sent.json()["id"]}
        spec = {**SPEC, "data": {**SPEC["data"], "source": source}}
        job_id = add_job(database, id=uuid4(), spec=spec, dataset_ids=dataset_ids, **ENDED)
        publish()
        with database.write() as session:
            session.execute(update(ModelVersion).values(job_id=job_id))
        return job_id

    return make
