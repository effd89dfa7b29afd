"""The page of reviews, and the live accuracy on the page of a model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.web import models
from lora_core.specs.task import SeveralTargetsSpec
from tests.app.serving.conftest import Publish, publish
from tests.app.web.html_elements import elements
from tests.app.web.test_jobs import HOSTILE
from tests.app.web.test_registry import page
from tests.kept_predictions import add_feedback, add_prediction
from tests.tiny_artifact import make_artifact, make_several_targets_artifact

__all__ = ["publish"]

PATH = "/models/sentiment/review"


def draw(client: TestClient, model: str = "sentiment") -> None:
    assert client.post(f"/v1/models/{model}/review", json={}).status_code == 200


def test_one_button_per_label(client: TestClient, publish: Publish, database: Database) -> None:
    publish()
    assert "Nothing is left to label." in page(client, PATH)
    prediction_id = add_prediction(database, text=HOSTILE)
    add_prediction(database, text=None)
    draw(client)
    html = page(client, PATH)
    assert HOSTILE not in html
    assert "The text is not kept." in html
    texts = {each.attributes["data-prediction"] for each in elements(html, "article")}
    assert f"{prediction_id.hex}-0" in texts
    buttons = [each for each in elements(html, "button") if each.attributes.get("name") == "label"]
    assert [each.attributes["value"] for each in buttons] == ["bad", "good"] * 2
    assert {each.attributes.get("class") for each in buttons} == {None}  # none is suggested


def test_other_tasks(
    client: TestClient, publish: Publish, database: Database, tmp_path: Path
) -> None:
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "a"))
    answer = '{"flags": ["rude"], "stars": 2.5, "topic": "refund"}'
    add_prediction(database, model="mails", task="several_targets", answer=answer, confidence={})
    draw(client, "mails")
    html = page(client, "/models/mails/review")
    forms = [each for each in elements(html, "form") if "data-task" in each.attributes]
    assert [(each.attributes["data-target"], each.attributes["data-task"]) for each in forms] == [
        *(("flags", "multi_label"), ("stars", "regression"), ("topic", "single_label")),
    ]
    boxes = [each for each in elements(html, "input") if each.attributes["type"] == "checkbox"]
    assert [each.attributes["value"] for each in boxes] == ["rude", "urgent"]
    assert not any("checked" in each.attributes for each in boxes)
    (number,) = (each for each in elements(html, "input") if each.attributes["type"] == "number")
    assert "value" not in number.attributes


def test_many_labels_are_a_list(
    client: TestClient, publish: Publish, database: Database, tmp_path: Path
) -> None:
    labels = tuple(f"label  {i:02}" for i in range(13))  # with two spaces
    publish(artifact=make_artifact(tmp_path / "a", labels=labels, top_label="label  03"))
    add_prediction(database, answer="label  03")
    draw(client)
    options = [each for each in elements(page(client, PATH), "option") if "label" in each.text]
    assert [each.attributes["value"] for each in options] == ["", *labels]
    assert not any("selected" in each.attributes for each in options)


def test_a_target_may_be_named_label(
    client: TestClient, publish: Publish, database: Database, tmp_path: Path
) -> None:
    task = SeveralTargetsSpec.model_validate({"targets": {"label": {}, "other": {}}})
    outputs = ("label/a", "label/b", "other/a", "other/b")
    artifact = make_artifact(tmp_path / "a", labels=outputs, top_label="label/a", task=task)
    publish("mails", artifact=artifact)
    answer = '{"label": "a", "other": "b"}'
    add_prediction(database, model="mails", task="several_targets", answer=answer, confidence={})
    draw(client, "mails")
    forms = elements(page(client, "/models/mails/review"), "form")
    targets = [each.attributes.get("data-target") for each in forms]
    assert [each for each in targets if each is not None] == ["label", "other"]


def test_versions(client: TestClient, publish: Publish, database: Database) -> None:
    publish()
    publish(promote=False)
    assert "Review of sentiment:1" in page(client, PATH)
    assert "Review of sentiment:2" in page(client, f"{PATH}?version=2")
    assert client.get(f"{PATH}?version=3").status_code == 404
    assert client.get("/models/missing/review").status_code == 404


def test_live_accuracy_is_on_the_page_of_the_model(
    client: TestClient,
    publish: Publish,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish()
    assert "Nobody has labeled live texts of sentiment yet." in page(client)
    monkeypatch.setattr(models, "_CACHE_SECONDS", 1e-9)
    for i in range(40):
        add_feedback(database, label="good" if i < 30 else "bad")
    for i in range(57):
        add_feedback(database, sampled=False, label="bad" if i < 41 else "good")
    for path in ("/models/sentiment", PATH):
        cells = [each.text for each in elements(page(client, path), "td")]
        assert "41 of 57 changed" in cells
        (estimate,) = (each for each in cells if each.startswith("75.0%"))
        assert "59.8%" in estimate  # Wilson, by R's binom.confint(30, 40)
        assert "85.8%" in estimate


def test_the_page_needs_the_scope_of_texts(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey], publish: Publish
) -> None:
    publish()
    for scopes, status in ((("models:read", "predict"), 403), (("datasets:read",), 200)):
        headers = {"Authorization": f"Bearer {new_key(*scopes).text}", "Accept": "text/html"}
        assert anonymous_client.get(PATH, headers=headers).status_code == status
