"""What an imported version is, or claims to be, changes no answer of another version."""

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
from tests.hostile_archives import ATTACKS, WORD
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
