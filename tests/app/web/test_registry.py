"""Model pages, and the API calls of their buttons."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event
from starlette.testclient import TestClient

from app.database.base import new_id
from app.registry import service
from app.resources import Resources
from app.storage import repository as artifacts
from app.web import models
from lora_core import manifest
from tests.app.serving.conftest import Publish, publish
from tests.app.web.finished_jobs import make_verdict, succeed
from tests.app.web.html_elements import HtmlElement, elements
from tests.app.web.test_jobs import HOSTILE
from tests.job_rows import SPEC, add_job

__all__ = ["publish"]

METRICS = {
    "test": {"accuracy": 0.8141},
    "validation": {"accuracy": 0.8421},
    "linear": {"test": {"accuracy": 0.7163}},
}
HTML = {"Accept": "text/html"}
WAIT = 20  # seconds


@pytest.fixture
def register(resources: Resources, tmp_path: Path) -> Callable[..., None]:
    """Register a version that cannot serve."""

    def make(job_id: UUID | None, name: str = "tickets", *, spec: dict[str, Any] = SPEC) -> None:
        directory = tmp_path / uuid4().hex
        directory.mkdir()
        manifest.create_and_save(directory, {"format": 1, "spec": spec})
        ref = resources.store.move_directory_into_store(directory, f"jobs/{new_id()}/a1")
        with resources.database.write() as session:
            artifact = artifacts.add_artifact(session, job_id=job_id, kind="model", ref=ref)
            facts = {"spec": spec, "metrics": METRICS}
            service.add_version(session, name=name, artifact=artifact, manifest=facts)

    return make


def page(client: TestClient, path: str = "/models/sentiment") -> str:
    answer = client.get(path, headers=HTML)
    assert answer.status_code == 200, answer.text
    return answer.text


def button(client: TestClient, starts: str, path: str = "/models/sentiment") -> HtmlElement | None:
    found = [
        each for each in elements(page(client, path), "button") if each.text.startswith(starts)
    ]
    return found[0] if found else None


def press(client: TestClient, starts: str) -> None:
    """Send the API call of a button."""
    pressed = button(client, starts)
    assert pressed is not None, starts
    assert pressed["data-confirm"].endswith((".", "?"))
    method, path = pressed["data-request"].split()
    body = pressed.get("data-body")
    answer = client.request(method, path, json=body and json.loads(body))
    assert answer.is_success, answer.text


def test_empty_state_explains_how_to_start(client: TestClient) -> None:
    shown = page(client, "/models")
    assert "No models yet" in shown
    assert 'href="/jobs/new"' in shown
    assert "loraworks models register" in shown
    assert "loraworks models import FILE --name NAME" in shown


@pytest.mark.parametrize("learned", [True, False])
def test_promotions_show_the_verdict(
    client: TestClient, resources: Resources, learned: bool
) -> None:
    """Whatever moves an alias: on the page of the job, and both ways on that of the model."""
    verdict = make_verdict(learned=learned)
    job_id = succeed(client, resources, model="mine", verdict=verdict)
    shown = {
        "headline": verdict.headline,
        "sentences": list(verdict.sentences),
        "learned_nothing": not learned,
    }
    assert any("linear" in sentence for sentence in verdict.sentences)
    for path in (f"/jobs/{job_id}", "/models/mine"):
        promote = button(client, "Promote", path)
        assert promote is not None
        assert json.loads(promote["data-verdict"]) == shown
    [version] = [
        each for each in elements(page(client, "/models/mine"), "option") if each.text == "1"
    ]
    assert json.loads(version["data-verdict"]) == shown


def test_list_shows_aliases(
    client: TestClient, publish: Publish, register: Callable[..., None]
) -> None:
    publish()
    register(None)
    shown = page(client, "/models")
    assert "No models yet" not in shown
    rows = {row.get("id"): row.text for row in elements(shown, "tr")}
    assert "production → 1" in rows["model-sentiment"]
    assert "none" in rows["model-tickets"]
    assert "81.4%" in rows["model-tickets"]
    assert [a["href"] for a in elements(shown, "a") if a.text == "tickets"] == ["/models/tickets"]


def test_pages_take_as_many_queries_for_many_versions(
    client: TestClient,
    resources: Resources,
    register: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An open page is rendered every two seconds."""
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        asked.append(statement)

    def count(path: str) -> int:
        asked.clear()
        assert client.get(path, headers=HTML).status_code == 200
        return len(asked)

    paths = ("/models", "/models/tickets", "/v1/models", "/predictions", "/try")
    monkeypatch.setattr(models, "_CACHE_SECONDS", math.inf)  # estimates are cached for ever
    register(add_job(resources.database))
    with resources.database.write() as session:
        service.move_alias(session, name="tickets", alias="production", number=1)
    for path in paths:
        client.get(path)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        few = [count(path) for path in paths]
        for name in ("tickets", "tickets", "mails"):
            register(add_job(resources.database), name)
        assert [count(path) for path in paths] == few
        rows = {row.get("id"): row.text for row in elements(page(client, "/models"), "tr")}
        assert "production → 1" in rows["model-tickets"]
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_pagination(client: TestClient, register: Callable[..., None]) -> None:
    for number in range(52):
        register(None, f"model-{number}")
    first = page(client, "/models")
    [older] = [a["href"] for a in elements(first, "a") if a.text == "Older"]
    second = page(client, f"/models{older}")
    names = [
        row["id"] for shown in (first, second) for row in elements(shown, "tr") if row.get("id")
    ]
    assert names == [f"model-model-{number}" for number in reversed(range(52))]
    assert client.get("/models?after=nonsense", headers=HTML).status_code == 422


def test_version_links_to_its_job_and_data(
    client: TestClient, resources: Resources, register: Callable[..., None]
) -> None:
    dataset = new_id()
    spec = {**SPEC, "data": {**SPEC["data"], "source": {"train": "letters:2", "test": "imdb"}}}
    job = add_job(resources.database, name=HOSTILE, spec=spec, dataset_ids={"train": str(dataset)})
    register(job)
    register(uuid4())
    register(None)
    shown = page(client, "/models/tickets")
    assert HOSTILE not in shown
    links = {link.text: link["href"] for link in elements(shown, "a")}
    assert links[HOSTILE] == f"/jobs/{job}"
    assert links["letters:2"] == f"/datasets/{dataset}"
    assert "imdb" not in links
    rows = {row.get("id"): row.text for row in elements(shown, "tr")}
    for figure in ("81.4%", "84.2%", "71.6%", "imdb"):
        assert figure in rows["version-1"]
    assert "deleted job" in rows["version-2"]
    assert "imported" in rows["version-3"]


def snippets_of(client: TestClient, model: str) -> dict[str, str]:
    """Return what can be copied on the page of a model."""
    return {pre["id"]: pre.text for pre in elements(page(client, f"/models/{model}"), "pre")}


def test_use_of_a_pair_model_shows_pairs(
    client: TestClient, resources: Resources, register: Callable[..., None]
) -> None:
    spec = {**SPEC, "data": {**SPEC["data"], "text_pair_column": "second"}}
    register(add_job(resources.database, spec=spec))
    snippets = snippets_of(client, "tickets")
    assert "--pair" in snippets["use-command-line-1"]
    assert '"text_pair"' in snippets["use-curl-1"]
    assert "use-openai-1" not in snippets
    for name in ("command-line", "loraworks"):
        assert " --url http://testserver " in snippets[f"use-{name}-1"]


def test_use_of_an_import_follows_its_artifact(
    client: TestClient, register: Callable[..., None]
) -> None:
    data = {**SPEC["data"], "text_pair_column": "second"}
    register(None, "pairs", spec={**SPEC, "data": data})
    assert '"text_pair"' in snippets_of(client, "pairs")["use-curl-1"]
    register(None, "topics", spec={**SPEC, "task": {"type": "multi_label"}})
    assert "client.moderations" in snippets_of(client, "topics")["use-openai-1"]


def test_page_shows_a_version_whose_artifact_cannot_be_read(
    client: TestClient, resources: Resources, register: Callable[..., None]
) -> None:
    register(None)
    (damaged,) = resources.settings.data_dir.rglob("manifest.json")
    damaged.write_text("{")
    assert "tickets:1" in page(client, "/models/tickets")
    assert "Use it elsewhere" not in page(client, "/models/tickets")


def test_promote_and_roll_back(client: TestClient, publish: Publish) -> None:
    publish(promote=False)
    publish(promote=False, top_label="bad")
    assert "No version is in production" in page(client)
    press(client, "Promote version 1")
    assert "In production: <strong>version 1</strong>" in page(client)
    assert button(client, "Roll") is None
    assert button(client, "Promote version 1") is None
    press(client, "Promote version 2")
    assert "In production: <strong>version 2</strong>" in page(client)
    press(client, "Roll production back to 1")
    assert "In production: <strong>version 1</strong>" in page(client)
    press(client, "Remove production")
    assert "No version is in production" in page(client)


def test_version_with_an_alias_cannot_be_deleted(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False)
    assert button(client, "Delete version 1") is None
    assert button(client, "Delete sentiment") is None
    press(client, "Delete version 2")
    press(client, "Remove production")
    last = button(client, "Delete version 1")
    assert last is not None
    assert last["data-redirect"] == "/models"
    press(client, "Delete sentiment")
    assert client.get("/models/sentiment", headers=HTML).status_code == 404
    assert "No models yet" in page(client, "/models")


def test_version_can_be_downloaded(client: TestClient, publish: Publish) -> None:
    publish()
    [link] = [each for each in elements(page(client), "a") if each.text.startswith("Download")]
    assert client.get(link["href"]).headers["content-type"] == "application/x-tar"


def test_shadow_version_is_compared(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False, top_label="bad")
    assert "How the shadow version compares" not in page(client)
    client.put("/v1/models/sentiment/aliases/shadow", json={"version": 2})
    deadline = time.monotonic() + WAIT
    while "sentiment:2</th>" not in page(client) or ">0.0%<" not in page(client):
        assert time.monotonic() < deadline
        client.post("/predict", json={"inputs": "a film"})


def test_pages_and_prediction_routes_share_paths(client: TestClient, publish: Publish) -> None:
    publish()
    page(client)
    for path in ("/models/sentiment", "/models/sentiment/predict"):
        assert client.post(path, json={"inputs": "a film"}).json()[0]["label"] == "good"
    assert client.get("/models/sentiment/info", headers=HTML).json()["model_id"] == "sentiment:1"


def test_unknown_model(client: TestClient) -> None:
    answer = client.get("/models/other", headers=HTML)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "model_not_found" in answer.text
    assert client.get("/models/%3Cb%3E", headers=HTML).status_code == 422


def test_pages_need_the_models_read_scope(anonymous_client: TestClient, new_key: Any) -> None:
    for path in ("/models", "/models/sentiment"):
        headers = {"Authorization": f"Bearer {new_key('predict').text}"}
        assert anonymous_client.get(path, headers=headers).json()["code"] == "scope_missing"
        assert anonymous_client.get(path, headers=HTML, follow_redirects=False).status_code == 303
