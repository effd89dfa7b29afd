"""A version takes over without a failed request, or not at all."""

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


def version(client: TestClient) -> str:
    answer = client.post("/predict", json={"inputs": "a good film"})
    assert answer.status_code == 200, answer.text
    return answer.headers["x-model-version"]


def promote(client: TestClient, number: int) -> Any:
    return client.put(PRODUCTION, json={"version": number})


def test_a_promoted_version_is_loaded_already(
    app: FastAPI, client: TestClient, publish: Publish
) -> None:
    publish(promote=False)
    assert promote(client, 1).status_code == 200
    assert list(app.state.serving.pool._loads)
    assert version(client) == "sentiment:1"


def test_a_version_that_disagrees_with_its_golden_answers_is_refused(
    client: TestClient, publish: Publish, resources: Resources
) -> None:
    publish()

    def forget(directory: Path) -> None:
        rows = json.loads((directory / "golden.json").read_text())
        rows[0]["logits"][0] += 0.01
        (directory / "golden.json").write_text(json.dumps(rows))
        facts = manifest.read(directory)
        del facts["files"]
        (directory / "manifest.json").unlink()
        manifest.write(directory, facts)

    publish(promote=False, before=forget)
    refused = promote(client, 2)
    assert (refused.status_code, refused.json()["code"]) == (424, "model_disagrees")
    assert "sentiment:2" in refused.json()["detail"]
    assert version(client) == "sentiment:1"
    # Moved by somebody who did not try it out: the old one serves on all the same.
    service.move_alias(resources.database, name="sentiment", alias="production", number=2)
    for _ in range(3):
        assert version(client) == "sentiment:1"


def test_a_rollback_serves_the_version_before(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False, favours="bad")
    promote(client, 2)
    assert client.post(f"{PRODUCTION}/rollback").json()["aliases"] == {"production": 1}
    assert client.post("/predict", json={"inputs": "x"}).status_code == 200
