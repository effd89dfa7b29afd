"""Versions, aliases, and the checks before a promotion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dirty_equals import IsDatetime, IsPartialDict
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.database.engines import Database
from app.registry import service
from app.registry.service import ResolvedModel
from app.resources import Resources
from app.storage.tables import Artifact
from tests.app.registry.conftest import METRICS

Finished = Callable[[], Artifact]
MODEL = "/v1/models/sentiment"


@pytest.fixture
def register(client: TestClient, finished: Finished) -> Callable[..., dict[str, Any]]:
    """Register the model of a new job as the next version."""

    def post(name: str = "sentiment") -> dict[str, Any]:
        body = {"job_id": str(finished().job_id)}
        response = client.post(f"/v1/models/{name}/versions", json=body)
        assert response.status_code == 201, response.text
        version: dict[str, Any] = response.json()
        return version

    return post


Register = Callable[..., dict[str, Any]]


def promote(client: TestClient, number: int, alias: str = "production") -> Any:
    return client.put(f"{MODEL}/aliases/{alias}", json={"version": number})


def test_register_the_model_of_a_job(client: TestClient, finished: Finished) -> None:
    artifact = finished()
    response = client.post(f"{MODEL}/versions", json={"job_id": str(artifact.job_id)})
    assert response.status_code == 201
    version = {
        "number": 1,
        "ref": "sentiment:1",
        "artifact_id": str(artifact.id),
        "job_id": str(artifact.job_id),
        "base": "minilm-l6",
        "method": "lora",
        "metrics": METRICS,
        "created_at": IsDatetime(iso_string=True),
    }
    assert response.json() == version
    model = {
        "name": "sentiment",
        "created_at": IsDatetime(iso_string=True),
        "aliases": {},
        "versions": [version],
    }
    assert client.get(MODEL).json() == model
    del model["versions"]
    listed = {**model, "version_count": 1, "newest": 1}
    assert client.get("/v1/models").json() == {"data": [listed], "next": None}


def test_versions_count_per_name(register: Register) -> None:
    assert [register("a")["ref"], register("b")["ref"], register("a")["ref"]] == [
        "a:1",
        "b:1",
        "a:2",
    ]


def test_version_numbers_are_never_reused(client: TestClient, register: Register) -> None:
    register(), register()
    assert client.delete(f"{MODEL}/versions/2").status_code == 204
    assert register()["number"] == 3
    assert client.delete(MODEL).status_code == 204
    assert client.get(MODEL).json()["code"] == "model_not_found"
    assert client.get("/v1/models").json()["data"] == []
    assert register()["number"] == 4
    assert [version["number"] for version in client.get(MODEL).json()["versions"]] == [4]


def test_a_job_without_an_artifact_cannot_be_registered(client: TestClient) -> None:
    response = client.post(f"{MODEL}/versions", json={"job_id": str(uuid4())})
    assert (response.status_code, response.json()["code"]) == (409, "job_without_model")
    assert client.get(MODEL).status_code == 404


def test_move_alias(client: TestClient, register: Register) -> None:
    register(), register()
    for number in (1, 2, 1):
        response = promote(client, number)
        assert response.status_code == 200
        assert response.json()["aliases"] == {"production": number}
    promote(client, 2, "staging")
    assert client.get(MODEL).json()["aliases"] == {"production": 1, "staging": 2}


def test_an_alias_needs_a_version_that_exists(client: TestClient, register: Register) -> None:
    assert promote(client, 1).json()["code"] == "model_not_found"
    register()
    promote(client, 1)
    assert promote(client, 2).status_code == 404
    assert client.get(MODEL).json()["aliases"] == {"production": 1}


@pytest.mark.parametrize("damage", ["change", "remove", "add", "forge", "lose"])
def test_a_damaged_version_is_not_promoted(
    client: TestClient, register: Register, finished: Finished, resources: Resources, damage: str
) -> None:
    register()
    promote(client, 1)
    artifact = finished()
    client.post(f"{MODEL}/versions", json={"job_id": str(artifact.job_id)})
    _damage(resources.store.local_directory(artifact.ref), damage)
    response = promote(client, 2)
    assert (response.status_code, response.json()["code"]) == (409, "artifact_corrupt")
    assert "sentiment:2" in response.json()["detail"]
    assert client.get(MODEL).json()["aliases"] == {"production": 1}


def _damage(directory: Path, kind: str) -> None:
    weights, listed = directory / "weights", directory / "manifest.json"
    match kind:
        case "change":
            weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        case "remove":
            weights.unlink()
        case "add":
            (directory / "extra").touch()
        case "forge":  # files and manifest are consistent, but differ from what was stored
            listed.write_text(listed.read_text().replace("0.8", "0.9"))
        case "lose":
            directory.rename(directory.with_name("elsewhere"))


def test_a_version_with_an_alias_cannot_be_deleted(client: TestClient, register: Register) -> None:
    register(), register()
    promote(client, 1)
    refused = client.delete(f"{MODEL}/versions/1")
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use")
    assert client.delete(MODEL).json()["code"] == "model_in_use"
    assert client.delete(f"{MODEL}/aliases/production").status_code == 204
    assert client.delete(f"{MODEL}/aliases/production").json()["code"] == "alias_not_found"
    assert client.delete(f"{MODEL}/versions/1").status_code == 204
    assert client.delete(f"{MODEL}/versions/1").json()["code"] == "model_not_found"
    assert [version["number"] for version in client.get(MODEL).json()["versions"]] == [2]


def test_an_artifact_is_kept_while_a_version_needs_it(
    client: TestClient, finished: Finished, resources: Resources
) -> None:
    artifact = finished()  # its job has no row
    files = resources.store.local_directory(artifact.ref)
    for name in ("sentiment", "other"):
        client.post(f"/v1/models/{name}/versions", json={"job_id": str(artifact.job_id)})
    assert client.delete(f"{MODEL}/versions/1").status_code == 204
    assert client.get(f"/v1/artifacts/{artifact.id}").status_code == 200
    assert client.delete("/v1/models/other").status_code == 204
    assert client.get(f"/v1/artifacts/{artifact.id}").status_code == 404
    assert not files.exists()


def test_pagination(client: TestClient, register: Register) -> None:
    for name in ("a", "b", "c"):
        register(name)
    first = client.get("/v1/models", params={"limit": 2}).json()
    assert [model["name"] for model in first["data"]] == ["c", "b"]
    second = client.get("/v1/models", params={"limit": 2, "after": first["next"]}).json()
    assert [model["name"] for model in second["data"]] == ["a"]
    assert second["next"] is None


def test_a_name_is_a_slug(client: TestClient) -> None:
    body = {"job_id": str(uuid4())}
    for name in ("Bad", "a b", "$(id)", "-a", "a" * 65, "a%0a", "%3btouch x", "%00"):
        assert client.post(f"/v1/models/{name}/versions", json=body).status_code == 422, name
        alias = client.put(f"/v1/models/a/aliases/{name}", json={"version": 1})
        assert alias.status_code == 422, name


def test_a_version_is_a_positive_number(client: TestClient) -> None:
    for version in (0, -1, "1", 1.5, True, None, 10**30):
        response = client.put(f"{MODEL}/aliases/production", json={"version": version})
        assert response.status_code == 422, version
        assert response.json() == IsPartialDict(code="validation_failed")


def test_a_rollback_does_not_undo_a_promotion_at_the_same_time(
    app: FastAPI, client: TestClient, register: Register, database: Database
) -> None:
    for number in (1, 2, 3):
        register(), promote(client, number)
    register()

    async def promote_concurrently(_: ResolvedModel) -> None:
        with database.write() as session:
            service.move_alias(session, name="sentiment", alias="production", number=4)

    app.state.check_servable = promote_concurrently
    refused = client.post(f"{MODEL}/aliases/production/rollback")
    assert (refused.status_code, refused.json()["code"]) == (409, "concurrent_update")
    assert client.get(MODEL).json()["aliases"] == {"production": 4}


def test_roll_back_alias(client: TestClient, register: Register) -> None:
    register(), register(), register()
    back = f"{MODEL}/aliases/production/rollback"
    assert client.post(back).json()["code"] == "alias_not_found"
    promote(client, 1)
    promote(client, 1)  # already there, so there is no previous version
    refused = client.post(back)
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing_to_roll_back")
    promote(client, 2), promote(client, 3)
    assert client.post(back).json()["aliases"] == {"production": 2}
    assert client.post(back).json()["code"] == "nothing_to_roll_back"  # repeated: no change
    promote(client, 1)
    assert client.delete(f"{MODEL}/versions/2").status_code == 204
    assert client.post(back).json()["code"] == "nothing_to_roll_back"
    assert client.get(MODEL).json()["aliases"] == {"production": 1}
    assert client.post("/v1/models/other/aliases/production/rollback").status_code == 404
