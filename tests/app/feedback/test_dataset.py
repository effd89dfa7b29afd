"""Datasets made from feedback."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lora_core.specs.task import SeveralTargetsSpec
from tests.app.feedback.conftest import Publish
from tests.app.feedback.test_feedback import Json, listed, predict, send, send_many
from tests.tiny_artifact import (
    make_artifact,
    make_multi_label_artifact,
    make_regression_artifact,
    make_several_targets_artifact,
)


def make(client: TestClient, model: str = "sentiment", **body: Any) -> Any:
    return client.post(f"/v1/models/{model}/feedback/dataset", json=body)


def made(client: TestClient, model: str = "sentiment", **body: Any) -> tuple[Json, list[Json]]:
    """Make a dataset, and return it with its lines."""
    sent = make(client, model, **body)
    assert sent.status_code == 201, sent.text
    content = client.get(f"/v1/datasets/{sent.json()['ref']}/content").text
    return sent.json(), [json.loads(line) for line in content.splitlines()]


def label(client: TestClient, **labels: str) -> None:
    items = [{"text": text, "model": "sentiment", "label": label} for text, label in labels.items()]
    assert send_many(client, *items)["failed"] == 0


def test_newest_label_of_each_text(keeping: TestClient, publish: Publish) -> None:
    publish()
    label(keeping, one="good", two="bad", three="good")
    label(keeping, three="bad")
    send(keeping, text="  two ", model="sentiment", label="good", by="ada")
    kept = predict(keeping, "four")
    send(keeping, prediction_id=kept, label="bad")
    dataset, lines = made(keeping)
    assert (dataset["name"], dataset["version"], dataset["rows"]) == ("sentiment-feedback", 1, 4)
    assert {line["text"]: line["label"] for line in lines} == {
        "one": "good",
        "three": "bad",
        "  two ": "good",
        "four": "bad",
    }
    again = make(keeping)
    assert (again.status_code, again.json()["id"]) == (200, dataset["id"])
    label(keeping, five="good")
    following, lines = made(keeping)
    assert (following["ref"], len(lines)) == ("sentiment-feedback:2", 5)


def test_only_changed_labels(keeping: TestClient, publish: Publish) -> None:
    publish()
    for text, right in (("a", "good"), ("b", "bad"), ("c", "bad"), ("d", "good")):
        send(keeping, prediction_id=predict(keeping, text), label=right)
    label(keeping, e="good")  # what was predicted is not known
    dataset, lines = made(keeping, changed_only=True, name="corrections")
    assert dataset["ref"] == "corrections:1"
    assert {line["text"] for line in lines} == {"b", "c", "e"}


def test_newest_label_decides_whether_it_was_changed(keeping: TestClient, publish: Publish) -> None:
    """Not an older one that was taken back."""
    publish()
    for text, labels in (("a", ("bad", "good")), ("b", ("good", "bad")), ("c", ("bad", "bad"))):
        for right in labels:
            send(keeping, prediction_id=predict(keeping, text), label=right)
    label(keeping, d="good")
    _, lines = made(keeping, changed_only=True)
    assert {line["text"]: line["label"] for line in lines} == {"b": "bad", "c": "bad", "d": "good"}


def test_text_is_changed_if_any_target_is(
    keeping: TestClient, publish: Publish, tmp_path: Path
) -> None:
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "a"))
    for text, topic in (("a", "refund"), ("b", "billing"), ("c", "refund")):
        key = {"prediction_id": predict(keeping, text, model="mails")}
        send(keeping, **key, target="topic", label=topic)
        send(keeping, **key, target="flags", labels=[])
        send(keeping, **key, target="stars", value=1)
        stars, flags, _ = (each["answer"] for each in listed(keeping, "mails")[:3])
        if text != "c":
            send(keeping, **key, target="flags", labels=flags)
            send(keeping, **key, target="stars", value=stars)
    _, lines = made(keeping, "mails", changed_only=True)
    assert [line.pop("stars") == 1.0 for line in lines] == [False, True]
    assert lines == [
        {"text": "b", "topic": "billing", "flags": flags},
        {"text": "c", "topic": "refund", "flags": []},
    ]


def test_other_tasks(client: TestClient, publish: Publish, tmp_path: Path) -> None:
    publish("topics", artifact=make_multi_label_artifact(tmp_path / "a"))
    publish("stars", artifact=make_regression_artifact(tmp_path / "b", pairs=True))
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "c"))
    for index, labels in enumerate((["plot"], [], ["acting", "plot"])):
        send(client, text=f"text {index}", model="topics", labels=labels)
        send(client, text=f"q {index}", text_pair="p", model="stars", value=index)
        text = {"text": f"text {index}", "model": "mails"}
        send(client, **text, target="topic", label=("billing", "refund")[index % 2])
        send(client, **text, target="flags", labels=["rude"] * (index % 2))
        if index < 2:  # of the third, a target is missing
            send(client, **text, target="stars", value=index)
    dataset, lines = made(client, "topics")
    assert (dataset["task"], [line["label"] for line in lines]) == (
        *("multi_label", [["plot"], [], ["acting", "plot"]]),
    )
    dataset, lines = made(client, "stars")
    assert (dataset["task"], dataset["text_pair_column"]) == ("regression", "text_pair")
    assert lines[1] == {"text": "q 1", "text_pair": "p", "label": 1.0}
    dataset, lines = made(client, "mails")
    assert dataset["task"] == "several_targets"
    assert lines == [
        {"text": "text 0", "topic": "billing", "flags": [], "stars": 0.0},
        {"text": "text 1", "topic": "refund", "flags": ["rude"], "stars": 1.0},
    ]


def test_idempotency_key(client: TestClient, publish: Publish) -> None:
    publish()
    label(client, one="good", two="bad")
    path, headers = "/v1/models/sentiment/feedback/dataset", {"Idempotency-Key": "once"}
    first = client.post(path, json={}, headers=headers)
    label(client, three="bad")
    again = client.post(path, json={}, headers=headers)
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (
        *(first.json()["id"], "true"),
    )


def test_nothing_to_make(client: TestClient, publish: Publish) -> None:
    publish()
    bodies: tuple[Json, ...] = ({}, {"changed_only": True})
    for body in bodies:
        refused = make(client, **body)
        assert (refused.status_code, refused.json()["code"]) == (409, "no_feedback_texts")
    label(client, one="good")
    refused = make(client)
    assert (refused.status_code, refused.json()["code"]) == (422, "one_class")
    refused = make(client, "missing")
    assert (refused.status_code, refused.json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("body", [{"name": "Not a slug"}, {"changed_only": 1}, {"only": "changed"}])
def test_bad_bodies(body: Json, client: TestClient) -> None:
    assert make(client, **body).status_code == 422


def test_versions_of_another_form_are_left_out(
    client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    """The next version may have another task, read pairs, or have several targets."""
    publish()
    label(client, one="good", two="bad")
    publish(artifact=make_regression_artifact(tmp_path / "a"))
    for i in range(4):
        send(client, text=f"text {i}", model="sentiment", value=i)
    dataset, lines = made(client)
    assert (dataset["task"], lines[3]) == ("regression", {"text": "text 3", "label": 3.0})
    assert len(lines) == 4
    publish(artifact=make_regression_artifact(tmp_path / "b", pairs=True))
    for i in range(2):
        send(client, text=f"text {i}", text_pair="p", model="sentiment", value=i)
    assert made(client)[1] == [
        {"text": f"text {i}", "text_pair": "p", "label": float(i)} for i in range(2)
    ]
    publish(artifact=make_several_targets_artifact(tmp_path / "c"))
    for i in range(2):
        text = {"text": f"text {i}", "model": "sentiment"}
        send(client, **text, target="topic", label=("billing", "refund")[i])
    dataset, lines = made(client)
    assert (dataset["task"], dataset["label_column"]) == ("single_label", "topic")
    assert lines == [{"text": f"text {i}", "topic": ("billing", "refund")[i]} for i in range(2)]


def artifact_of_targets(folder: Path, *names: str) -> Path:
    """Each of the targets has the labels a and b."""
    outputs = tuple(f"{name}/{label}" for name in names for label in "ab")
    task = SeveralTargetsSpec.model_validate({"targets": {name: {} for name in names}})
    return make_artifact(folder, labels=outputs, top_label=outputs[0], task=task)


def test_targets_that_no_version_has_any_more(
    client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    """Nobody can label them, so no text would be complete."""

    def send_all(start: int, *targets: str) -> None:
        for i in range(start, start + 4):
            for target in targets:
                send(client, text=f"text {i}", model="mails", target=target, label="ab"[i % 2])

    publish("mails", artifact=artifact_of_targets(tmp_path / "a", "topic", "urgency"))
    send_all(0, "topic", "urgency")
    publish("mails", artifact=artifact_of_targets(tmp_path / "b", "topic", "priority"))
    send_all(4, "topic", "priority")
    dataset, lines = made(client, "mails")
    assert (dataset["rows"], dataset["targets"].keys()) == (4, {"topic", "priority"})
    assert lines[0] == {"text": "text 4", "topic": "a", "priority": "a"}
    client.put("/v1/models/mails/aliases/production", json={"version": 1})
    assert client.delete("/v1/models/mails/versions/2").status_code == 204
    refused = make(client, "mails")  # which targets there are is not known
    assert (refused.status_code, refused.json()["code"]) == (409, "feedback_incomplete")
    assert "8 texts with feedback on mails" in refused.json()["detail"]
    assert "priority, topic, urgency" in refused.json()["detail"]


def test_targets_that_are_named_like_columns(
    client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    targets = ("text", "text_pair", "split", "label")
    publish("mails", artifact=artifact_of_targets(tmp_path / "a", *targets))
    for i in range(4):
        for name in targets:
            send(client, text=f"text {i}", model="mails", target=name, label="ab"[i % 2])
    dataset, lines = made(client, "mails")
    assert (dataset["rows"], dataset["targets"].keys()) == (4, set(targets))
    columns = ("_text", "_text_pair", "_split", "label")
    assert lines[1] == {"text": "text 1"} | dict.fromkeys(columns, "b")
