"""The page that asks models. What its script draws is tested in a browser."""

from typing import Any

from starlette.testclient import TestClient

from tests.app.serving.conftest import Publish, publish
from tests.app.web.markup import Element, elements

__all__ = ["publish"]


def chosen(shown: str) -> list[str]:
    """Of both lists; what is not chosen is the first of a list."""
    return [each["value"] for each in elements(shown, "option") if each.get("selected") is not None]


def offered(client: TestClient) -> list[Element]:
    """What both lists offer, the second with `nothing` first."""
    return elements(client.get("/try").text, "option")


def test_the_first_visit_says_what_to_do(client: TestClient) -> None:
    shown = client.get("/try").text
    assert "No model to ask yet" in shown
    assert "try_it.js" not in shown


def test_every_model_that_is_offered_answers(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False, favours="bad")
    publish("topics", promote=False)
    client.put("/v1/models/sentiment/aliases/staging", json={"version": 2})
    refs = [each["value"] for each in offered(client)]
    one = ["topics:1", "sentiment", "sentiment@staging", "sentiment:2", "sentiment:1"]
    assert refs == [*one, "", *one]
    for ref in one:
        assert client.post(f"/models/{ref}/predict", json={"inputs": "a film"}).is_success
        assert client.post(f"/v1/models/{ref}/explain", json={"inputs": "a film"}).is_success


def test_the_address_chooses(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False)
    assert chosen(client.get("/try").text) == ["sentiment"]
    asked = {"model": "sentiment:2", "beside": "sentiment:1"}
    assert chosen(client.get("/try", params=asked).text) == ["sentiment:2", "sentiment:1"]


def test_a_model_that_is_not_there_is_told(client: TestClient, publish: Publish) -> None:
    publish()
    shown = client.get("/try", params={"model": "<b>other", "beside": "sentiment:7"}).text
    assert "There is no model &lt;b&gt;other." in shown
    assert "There is no model sentiment:7." in shown
    assert chosen(shown) == ["sentiment"]


def test_examples_are_texts_that_the_model_was_tested_with(
    client: TestClient, publish: Publish
) -> None:
    publish()
    artifact = offered(client)[0]["data-artifact"]
    kept = client.get(f"/v1/artifacts/{artifact}/files/golden.json").json()
    assert [row["text"] for row in kept] == ["a good film", "a dull plot", "the story was fine"]


def test_the_key_must_be_allowed_to_read_models(locked_client: TestClient, new_key: Any) -> None:
    headers = {"Authorization": f"Bearer {new_key('predict').text}"}
    assert locked_client.get("/try", headers=headers).json()["code"] == "scope_missing"
