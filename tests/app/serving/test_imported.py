"""Tests that imported versions cannot change the predictions of other versions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from lora_core import manifest
from lora_core.inference.predictor import Predictor
from lora_core.specs.method import LoraSpec
from tests.app.serving.conftest import Publish
from tests.hostile_archives import ATTACKS, WORD, reseal
from tests.job_rows import MANIFEST
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import make_base

TEXTS = [f"an {WORD} film", "a good film", "a dull plot"]
CLAIMS = [name for name in ATTACKS if "under the digest of the base" in name]


@pytest.fixture
def lora(tmp_path: Path) -> Callable[..., Path]:
    """Makes artifacts of LoRA runs on the same base, with merged checkpoints."""
    base = make_base(tmp_path / "base")
    count = 0

    def make(**changes: Any) -> Path:
        nonlocal count
        count += 1
        return make_lora_artifact(
            tmp_path / f"run-{count}", LoraSpec(r=2), base=base, **{"in_format_1": True, **changes}
        )

    return make


def predict(client: TestClient, model: str, inputs: Any = None) -> Response:
    return client.post("/predict", json={"model": model, "inputs": inputs or TEXTS})


@pytest.mark.parametrize("claim", CLAIMS)
def test_imported_version_shares_its_engine_with_no_other(
    claim: str, client: TestClient, publish: Publish, lora: Callable[..., Path]
) -> None:
    publish("foreign", artifact=lora(), modify=ATTACKS[claim], imported=True)
    honest = publish("honest", artifact=lora())
    assert predict(client, "foreign").status_code == 200  # it is the first to be loaded
    response = predict(client, "honest")
    assert response.status_code == 200, response.text
    for predicted, expected in zip(
        response.json(), Predictor.load(honest).predict(TEXTS), strict=True
    ):
        assert {each["label"]: each["score"] for each in predicted} == pytest.approx(
            dict(expected), abs=1e-5
        )


def test_only_versions_trained_here_share_an_engine(
    app: FastAPI, client: TestClient, publish: Publish, lora: Callable[..., Path]
) -> None:
    names = {"one": False, "two": False, "three": True, "four": True}
    for name, imported in names.items():
        publish(name, artifact=lora(), imported=imported)
        assert predict(client, name).status_code == 200
    loaded = [task.result().predictor for task in app.state.serving.pool._load_tasks.values()]
    one, two, three, four = (predictor.engine for predictor in loaded)
    assert one is two
    assert len({id(one), id(three), id(four)}) == 3


def test_versions_with_the_same_stored_base_share_an_engine(
    app: FastAPI, client: TestClient, publish: Publish, lora: Callable[..., Path], tmp_path: Path
) -> None:
    """Imported or not: the digest of a base is computed here, from the files that are stored."""

    def claim(directory: Path) -> None:
        """Claim the digests of the base of the others."""
        known = manifest.read(first)
        names = ("base_sha256", "base_manifest_sha256")
        reseal(directory, **{name: known.get(name, "0" * 64) for name in names})

    first = publish("one", artifact=lora(in_format_1=False))
    publish("two", artifact=lora(in_format_1=False), imported=True)
    other = make_base(tmp_path / "other", seed=1)
    foreign = make_lora_artifact(tmp_path / "foreign", LoraSpec(r=2), base=other)
    publish("three", artifact=foreign, imported=True, modify=claim)
    for name in ("one", "two", "three"):
        response = predict(client, name)
        assert response.status_code == 200, response.text
    loaded = [task.result().predictor for task in app.state.serving.pool._load_tasks.values()]
    one, two, three = (predictor.engine for predictor in loaded)
    assert one is two is not three


def break_tokenizer(directory: Path) -> None:
    """Give the artifact a tokenizer that panics at many letters followed by another."""
    path = directory / "merged" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"] = {
        "type": "Replace", "pattern": {"Regex": "(?:a+a+)+$"}, "content": ""
    }  # fmt: skip
    path.write_text(json.dumps(tokenizer))
    reseal(directory)


@pytest.mark.parametrize("length", [40, 4000], ids=["on the event loop", "in a thread"])
def test_tokenizer_panic_fails_only_its_request(
    length: int, client: TestClient, publish: Publish
) -> None:
    publish("broken", modify=break_tokenizer)  # for example, of a base of the operator
    publish("whole")
    text = "a" * length + "b"
    for path in ("/predict", "/models/broken/predict"):
        response = client.post(path, json={"model": "broken", "inputs": text})
        assert (response.status_code, response.json()["code"]) == (424, "tokenizer_failed")
        assert response.json()["error_type"] == "Backend"
        assert response.headers["X-Request-Id"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    response = client.post("/v1/models/broken/explain", json={"inputs": text})
    assert (response.status_code, response.json()["code"]) == (424, "tokenizer_failed")
    assert response.headers["Content-Type"] == "application/problem+json"
    for name in ("whole", "broken"):
        assert predict(client, name, "a good film").status_code == 200


def test_tokenizer_panic_while_loading(client: TestClient, publish: Publish) -> None:
    publish("broken", modify=ATTACKS["a malformed map of SentencePiece"])
    response = predict(client, "broken")
    assert (response.status_code, response.json()["code"]) == (424, "model_unloadable")


ATTACKS_BEFORE_CHECKS = [
    "a letter becomes 200,000",
    "a hundred thousand kept answers",
    "one kept answer too many",
    "a temperature below zero",
    "a temperature that is a text",
    "an id beyond the embeddings",
    "a label that has no UTF-8",
]


@pytest.mark.parametrize("attack", ATTACKS_BEFORE_CHECKS)
def test_version_imported_before_the_checks_is_rejected(
    attack: str, client: TestClient, publish: Publish, lora: Callable[..., Path]
) -> None:
    publish("old", artifact=lora(), modify=ATTACKS[attack], imported=True)
    response = predict(client, "old", "z" * 100)
    assert (response.status_code, response.json()["code"]) == (424, "model_refused"), response.text
    promoted = client.put("/v1/models/old/aliases/production", json={"version": 1})
    assert promoted.json()["code"] == "model_refused"


INVALID_METRICS: list[Any] = [
    {"test": {"accuracy": "<b>"}},
    {"test": [1]},
    {"linear": [1], "validation": 3},
    {"test": {"accuracy": 10**400}},
    json.loads('{"x": ' * 300 + "1" + "}" * 300),
]


@pytest.mark.parametrize("metrics", INVALID_METRICS, ids=range(len(INVALID_METRICS)))
def test_invalid_metrics_of_an_old_import_are_hidden(
    metrics: Any, client: TestClient, publish: Publish
) -> None:
    publish("old", imported=True, manifest=MANIFEST | {"metrics": metrics})
    valid_metrics = {"test": {"accuracy": 0.75}}
    publish("honest", manifest=MANIFEST | {"metrics": valid_metrics})
    names = {each["name"] for each in client.get("/v1/models").json()["data"]}
    assert names == {"old", "honest"}
    for name, shown in {"old": {}, "honest": valid_metrics}.items():
        assert client.get(f"/v1/models/{name}").json()["versions"][0]["metrics"] == shown
    for page in ("/models", "/models/old"):
        assert client.get(page, headers={"Accept": "text/html"}).status_code == 200
    assert "75.0%" in client.get("/models", headers={"Accept": "text/html"}).text
