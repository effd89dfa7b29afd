"""A service whose host has no samples refuses what needs them, and shows what to type."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.database.engines import Database
from app.queue.tables import Job
from app.sweeps.tables import Sweep
from app.web.jobs import SAMPLE_JOB
from lora_core.samples import minilm, reviews
from tests.missing_samples import hide_samples
from tests.slow import slow_but

COMMAND = "`loraworks samples fetch`"
REVIEWS = "text,label\n" + "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(60))
OWN_DATA = {"data": {"source": "own"}}


@pytest.fixture
def client(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A client of a service without the samples, and with an uploaded dataset."""
    hide_samples(monkeypatch, tmp_path / "cache")
    file = {"file": ("own.csv", REVIEWS)}
    assert client.post("/v1/datasets", files=file).status_code == 201
    return client


@pytest.mark.parametrize("dry_run", slow_but(["", "?dry_run=true"], ""))
@pytest.mark.parametrize(
    ("body", "package"),
    [
        (SAMPLE_JOB, minilm.PACKAGE),
        ({}, minilm.PACKAGE),
        (OWN_DATA, minilm.PACKAGE),  # it starts from the sample base
        ({"method": {"type": "lora"}, **OWN_DATA}, minilm.PACKAGE),
        ({"method": {"type": "linear"}, "data": {"source": "imdb"}}, reviews.PACKAGE),
        (
            {
                "method": {"type": "linear"},
                "data": {"source": {"train": "own", "test": "rotten-tomatoes"}},
            },
            reviews.PACKAGE,
        ),
    ],
)
def test_job_that_needs_a_sample_is_refused(
    body: dict[str, Any], package: Any, dry_run: str, client: TestClient, database: Database
) -> None:
    response = client.post(f"/v1/jobs{dry_run}", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["code"] == "sample_missing"
    assert f"a file of {package.name} {package.version}" in response.json()["detail"]
    assert COMMAND in response.json()["detail"]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


@pytest.mark.parametrize("dry_run", slow_but(["", "?dry_run=true"], ""))
@pytest.mark.parametrize(
    "sweep",
    [
        {"job": {"method": {"type": "lora"}}, "space": {"method.r": [2, 4]}},
        {
            "job": {"method": {"type": "linear"}, **OWN_DATA},
            "space": {"data.source": ["own", "imdb"]},
        },
    ],
)
def test_sweep_that_needs_a_sample_is_refused(
    sweep: dict[str, Any], dry_run: str, client: TestClient, database: Database
) -> None:
    response = client.post(f"/v1/sweeps{dry_run}", json=sweep)
    assert response.status_code == 422, response.text
    assert COMMAND in response.text
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Sweep)) == 0


def test_job_that_needs_no_sample_is_accepted(client: TestClient) -> None:
    body = {"method": {"type": "linear"}, **OWN_DATA}
    assert client.post("/v1/jobs", json=body).status_code == 202


def test_pages_offer_no_sample(client: TestClient) -> None:
    jobs = client.get("/").text
    assert "No jobs yet" in jobs
    assert "Run the sample job" not in jobs
    assert "loraworks train --data rotten-tomatoes" not in jobs
    assert "loraworks samples fetch" in jobs
    for address in ("/jobs/new", "/sweeps/new"):
        page = client.get(address).text
        assert "<option>own</option>" in page
        assert f"<option>{minilm.NAME}</option>" not in page
        assert "<option>imdb</option>" not in page
    dataset = client.get("/v1/datasets/own").json()
    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    datasets = client.get("/datasets").text
    assert "loraworks samples fetch" in datasets
    assert "/jobs/new?data=imdb" not in datasets
