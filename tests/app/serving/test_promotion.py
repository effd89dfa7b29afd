"""Tests of promotion: a version takes over without a failed request, or not at all."""

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from app.registry import service
from app.resources import Resources
from lora_core import manifest
from tests.app.serving.conftest import Publish

PRODUCTION = "/v1/models/sentiment/aliases/production"


def served_version(client: TestClient) -> str:
    response = client.post("/predict", json={"inputs": "a good film"})
    assert response.status_code == 200, response.text
    return response.headers["x-model-version"]


def promote(client: TestClient, number: int) -> Any:
    return client.put(PRODUCTION, json={"version": number})


def test_promotion_loads_the_version(app: FastAPI, client: TestClient, publish: Publish) -> None:
    publish(promote=False)
    assert promote(client, 1).status_code == 200
    assert list(app.state.serving.pool._load_tasks)
    assert served_version(client) == "sentiment:1"


def test_version_that_does_not_reproduce_its_golden_predictions_is_rejected(
    client: TestClient, publish: Publish, resources: Resources
) -> None:
    publish()

    def change_golden_predictions(directory: Path) -> None:
        rows = json.loads((directory / "golden.json").read_text())
        rows[0]["logits"][0] += 0.01
        (directory / "golden.json").write_text(json.dumps(rows))
        facts = manifest.read(directory)
        del facts["files"]
        (directory / "manifest.json").unlink()
        manifest.create_and_save(directory, facts)

    publish(promote=False, modify=change_golden_predictions)
    rejected = promote(client, 2)
    assert (rejected.status_code, rejected.json()["code"]) == (424, "model_output_mismatch")
    assert "sentiment:2" in rejected.json()["detail"]
    assert served_version(client) == "sentiment:1"
    # Without the check, the old version keeps serving all the same.
    with resources.database.write() as session:
        service.move_alias(session, name="sentiment", alias="production", number=2)
    for _ in range(3):
        assert served_version(client) == "sentiment:1"


def test_rollback_serves_the_previous_version(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False, top_label="bad")
    promote(client, 2)
    assert client.post(f"{PRODUCTION}/rollback").json()["aliases"] == {"production": 1}
    assert client.post("/predict", json={"inputs": "x"}).status_code == 200
