"""What an imported version is, or claims to be, changes no answer of another version."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from lora_core.inference.predictor import Predictor
from lora_core.specs.method import LoraSpec
from tests.app.serving.conftest import Publish
from tests.hostile_archives import ATTACKS, WORD, reseal
from tests.job_rows import FACTS
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import make_base

TEXTS = [f"an {WORD} film", "a good film", "a dull plot"]
CLAIMS = [name for name in ATTACKS if "under the digest of the base" in name]


@pytest.fixture
def lora(tmp_path: Path) -> Callable[..., Path]:
    """Makes artifacts of runs on one base."""
    base = make_base(tmp_path / "base")
    made = 0

    def make(**changes: Any) -> Path:
        nonlocal made
        made += 1
        return make_lora_artifact(tmp_path / f"run-{made}", LoraSpec(r=2), base=base, **changes)

    return make


def ask(client: TestClient, model: str, inputs: Any = None) -> Response:
    return client.post("/predict", json={"model": model, "inputs": inputs or TEXTS})


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_engine_of_an_import_serves_nobody_else(
    claim: str, client: TestClient, publish: Publish, lora: Callable[..., Path]
) -> None:
    publish("foreign", made=lora(), before=ATTACKS[claim], imported=True)
    honest = publish("honest", made=lora())
    assert ask(client, "foreign").status_code == 200  # it is the first to be loaded
    answer = ask(client, "honest")
    assert answer.status_code == 200, answer.text
    for found, wanted in zip(answer.json(), Predictor.load(honest).predict(TEXTS), strict=True):
        assert {each["label"]: each["score"] for each in found} == pytest.approx(
            dict(wanted), abs=1e-5
        )


def test_versions_trained_here_on_one_base_share_an_engine_and_imports_share_none(
    app: FastAPI, client: TestClient, publish: Publish, lora: Callable[..., Path]
) -> None:
    names = {"one": False, "two": False, "three": True, "four": True}
    for name, imported in names.items():
        publish(name, made=lora(), imported=imported)
        assert ask(client, name).status_code == 200
    loaded = [each.result().predictor for each in app.state.serving.pool._loads.values()]
    one, two, three, four = (predictor.engine for predictor in loaded)
    assert one is two
    assert len({id(one), id(three), id(four)}) == 3


def broken(directory: Path) -> None:
    """A tokenizer that panics at many letters with another behind them."""
    path = directory / "merged" / "tokenizer.json"
    said = json.loads(path.read_text())
    said["normalizer"] = {
        "type": "Replace", "pattern": {"Regex": "(?:a+a+)+$"}, "content": ""
    }  # fmt: skip
    path.write_text(json.dumps(said))
    reseal(directory)


@pytest.mark.parametrize("length", [40, 4000], ids=["on the event loop", "in a thread"])
def test_a_tokenizer_that_panics_fails_one_answer_alone(
    length: int, client: TestClient, publish: Publish
) -> None:
    publish("broken", before=broken)  # of a base of the operator's, say
    publish("whole")
    text = "a" * length + "b"
    for path in ("/predict", "/models/broken/predict"):
        answer = client.post(path, json={"model": "broken", "inputs": text})
        assert (answer.status_code, answer.json()["code"]) == (424, "tokenizer_failed")
        assert answer.json()["error_type"] == "Backend"
        assert answer.headers["X-Request-Id"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    answer = client.post("/v1/models/broken/explain", json={"inputs": text})
    assert (answer.status_code, answer.json()["code"]) == (424, "tokenizer_failed")
    assert answer.headers["Content-Type"] == "application/problem+json"
    for name in ("whole", "broken"):
        assert ask(client, name, "a good film").status_code == 200


def test_a_tokenizer_that_panics_while_it_is_loaded(client: TestClient, publish: Publish) -> None:
    publish("broken", before=ATTACKS["a map of SentencePiece that is none"])
    answer = ask(client, "broken")
    assert (answer.status_code, answer.json()["code"]) == (424, "model_unloadable")


OLD = [
    "a letter becomes 200,000",
    "a hundred thousand kept answers",
    "one kept answer too many",
    "a temperature below zero",
    "a temperature that is a text",
    "an id beyond the embeddings",
    "a label that has no UTF-8",
]


@pytest.mark.parametrize("attack", OLD)
def test_what_was_imported_before_there_were_rules_is_not_loaded(
    attack: str, client: TestClient, publish: Publish, lora: Callable[..., Path]
) -> None:
    publish("old", made=lora(), before=ATTACKS[attack], imported=True)
    answer = ask(client, "old", "z" * 100)
    assert (answer.status_code, answer.json()["code"]) == (424, "model_refused"), answer.text
    promoted = client.put("/v1/models/old/aliases/production", json={"version": 1})
    assert promoted.json()["code"] == "model_refused"


FIGURES: list[Any] = [
    {"test": {"accuracy": "<b>"}},
    {"test": [1]},
    {"linear": [1], "validation": 3},
    {"test": {"accuracy": 10**400}},
    json.loads('{"x": ' * 300 + "1" + "}" * 300),
]


@pytest.mark.parametrize("metrics", FIGURES, ids=range(len(FIGURES)))
def test_figures_of_an_old_import_break_no_list(
    metrics: Any, client: TestClient, publish: Publish
) -> None:
    publish("old", imported=True, facts=FACTS | {"metrics": metrics})
    figures = {"test": {"accuracy": 0.75}}
    publish("honest", facts=FACTS | {"metrics": figures})
    names = {each["name"] for each in client.get("/v1/models").json()["data"]}
    assert names == {"old", "honest"}
    for name, shown in {"old": {}, "honest": figures}.items():
        assert client.get(f"/v1/models/{name}").json()["versions"][0]["metrics"] == shown
    for page in ("/models", "/models/old"):
        assert client.get(page, headers={"Accept": "text/html"}).status_code == 200
    assert "75.0 %" in client.get("/models", headers={"Accept": "text/html"}).text
