"""The "Try it" page. Its script is tested in tests/browser."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.web import form_options
from tests.app.serving.conftest import Publish, publish
from tests.app.web.html_elements import HtmlElement, elements

__all__ = ["publish"]


def selected(shown: str) -> list[str]:
    """Return the values of the selected options of both selects."""
    return [each["value"] for each in elements(shown, "option") if each.get("selected") is not None]


def options(client: TestClient) -> list[HtmlElement]:
    """Return the options of both selects; the second one starts with "none"."""
    return elements(client.get("/try").text, "option")


def test_empty_state_explains_how_to_start(client: TestClient) -> None:
    shown = client.get("/try").text
    assert "No models yet" in shown
    assert "try_it.js" not in shown


def test_every_listed_model_can_be_queried(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False, top_label="bad")
    publish("topics", promote=False)
    client.put("/v1/models/sentiment/aliases/staging", json={"version": 2})
    refs = [each["value"] for each in options(client)]
    one = ["topics:1", "sentiment", "sentiment@staging", "sentiment:2", "sentiment:1"]
    assert refs == [*one, "", *one]
    for ref in one:
        assert client.post(f"/models/{ref}/predict", json={"inputs": "a film"}).is_success
        assert client.post(f"/v1/models/{ref}/explain", json={"inputs": "a film"}).is_success


def test_query_string_selects_models(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False)
    assert selected(client.get("/try").text) == ["sentiment"]
    query = {"model": "sentiment:2", "compare": "sentiment:1"}
    assert selected(client.get("/try", params=query).text) == ["sentiment:2", "sentiment:1"]


def test_an_old_model_is_listed_if_it_is_wanted(
    client: TestClient, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_options, "_MAX_OPTIONS", 1)
    publish()
    publish("topics")
    listed = ["topics", "topics:1"]
    assert [each["value"] for each in options(client)] == [*listed, "", *listed]
    shown = client.get("/try", params={"model": "sentiment", "compare": "topics:1"}).text
    assert selected(shown) == ["sentiment", "topics:1"]
    assert "does not exist" not in shown
    page = client.get("/predictions", params={"model": "sentiment:1"}).text
    assert selected(page) == ["sentiment:1"]


def test_unknown_model(client: TestClient, publish: Publish) -> None:
    publish()
    shown = client.get("/try", params={"model": "<b>other", "compare": "sentiment:7"}).text
    assert "Model &lt;b&gt;other does not exist." in shown
    assert "Model sentiment:7 does not exist." in shown
    assert selected(shown) == ["sentiment"]


def test_examples_are_test_texts(client: TestClient, publish: Publish) -> None:
    publish()
    artifact = options(client)[0]["data-artifact"]
    examples = client.get(f"/v1/artifacts/{artifact}/files/golden.json").json()
    assert [row["text"] for row in examples] == ["a good film", "a dull plot", "the story was fine"]


def test_page_needs_the_models_read_scope(anonymous_client: TestClient, new_key: Any) -> None:
    headers = {"Authorization": f"Bearer {new_key('predict').text}"}
    assert anonymous_client.get("/try", headers=headers).json()["code"] == "scope_missing"
