"""Feedback over HTTP."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.engines import Database
from app.feedback.tables import Feedback
from app.privacy import repository as privacy
from lora_core.specs.task import SingleLabelSpec
from tests.app.feedback.conftest import Publish, Serving
from tests.kept_predictions import add_prediction, all_feedback
from tests.tiny_artifact import (
    make_artifact,
    make_multi_label_artifact,
    make_regression_artifact,
    make_several_targets_artifact,
)

Json = dict[str, Any]
ROUTE = "/v1/feedback"
TEXT = "a film of no great merit"


def send(client: TestClient, **body: Any) -> Json:
    """Send one item that is accepted."""
    sent = client.post(ROUTE, json=body)
    assert sent.status_code == 200, sent.text
    (result,) = sent.json()["data"]
    found: Json = result
    return found


def send_many(client: TestClient, *items: Json) -> Json:
    sent = client.post(ROUTE, json={"items": list(items)})
    assert sent.status_code == 200, sent.text
    found: Json = sent.json()
    return found


def refusal(client: TestClient, **body: Any) -> tuple[int, str]:
    sent = client.post(ROUTE, json=body)
    problem = sent.json()
    assert problem["detail"].endswith("."), problem
    return sent.status_code, problem["code"]


def predict(client: TestClient, inputs: Any = TEXT, **more: Any) -> str:
    """Predict, and return the id of the prediction."""
    sent = client.post("/predict", json={"inputs": inputs, **more})
    assert sent.status_code == 200, sent.text
    return sent.headers["X-Prediction-Id"]


def listed(client: TestClient, model: str = "sentiment", **query: Any) -> list[Json]:
    sent = client.get(f"/v1/models/{model}/feedback", params=query)
    assert sent.status_code == 200, sent.text
    found: list[Json] = sent.json()["data"]
    return found


def test_correct_a_kept_prediction(keeping: TestClient, publish: Publish) -> None:
    """At once: the prediction need not have been written before."""
    publish()
    prediction_id = predict(keeping)
    result = send(keeping, prediction_id=prediction_id, label="bad", by="ada")
    assert (result["status"], result["version"], result["error"]) == (
        *("created", "sentiment:1", None),
    )
    (row,) = listed(keeping)
    times = {row.pop(name) for name in ("created_at", "updated_at")}
    assert len(times) == 1
    assert row == {
        "id": result["id"],
        "version": "sentiment:1",
        "prediction_id": f"{prediction_id}-0",
        "target": None,
        "task": "single_label",
        "text": TEXT,
        "text_pair": None,
        "label": "bad",
        "answer": "good",
        "changed": True,
        "sampled": False,
        "by": "local/ada",
    }


def test_only_scores_are_kept(serving: Serving, publish: Publish) -> None:
    publish()
    client = serving(keep_traffic="scores")
    first, second = predict(client), predict(client)
    send(client, prediction_id=first, label="bad")
    send(client, prediction_id=second, label="bad", text=f"  {TEXT}\n", model="sentiment")
    assert [row["text"] for row in listed(client)] == [f"  {TEXT}\n", None]
    code = refusal(client, prediction_id=second, label="bad", text="another", model="sentiment")
    assert code == (422, "feedback_text_mismatch")


def test_without_kept_traffic_a_correction_brings_its_text(
    client: TestClient, publish: Publish
) -> None:
    publish()
    prediction_id = predict(client)
    refused = client.post(ROUTE, json={"prediction_id": prediction_id, "label": "bad"})
    assert (refused.status_code, refused.json()["code"]) == (404, "prediction_not_kept")
    assert prediction_id in refused.json()["detail"]
    assert "`text` and `model`" in refused.json()["detail"]
    send(client, prediction_id=prediction_id, label="bad", text=TEXT, model="sentiment")
    (row,) = listed(client)
    assert (row["text"], row["answer"], row["changed"], row["prediction_id"]) == (
        *(TEXT, None, None, None),
    )


def test_the_newest_of_an_author_counts(client: TestClient, publish: Publish) -> None:
    publish()

    def status(label: str, **more: Any) -> str:
        found: str = send(client, text=TEXT, model="sentiment", label=label, **more)["status"]
        return found

    assert [status("bad"), status("bad"), status("good"), status("good", by="ada")] == [
        *("created", "unchanged", "updated", "created"),
    ]
    ada, local = listed(client)
    assert (ada["by"], local["by"], local["label"]) == ("local/ada", "local", "good")
    assert local["updated_at"] > local["created_at"]
    both = {"text": "twice", "model": "sentiment"}
    found = send_many(client, {**both, "label": "good"}, {**both, "label": "bad"})
    assert [each["status"] for each in found["data"]] == ["created", "updated"]
    assert listed(client)[0]["label"] == "bad"
    page = client.get("/v1/models/sentiment/feedback", params={"limit": 2}).json()
    following = client.get("/v1/models/sentiment/feedback", params={"after": page["next"]}).json()
    assert len(page["data"] + following["data"]) == 3


def test_concurrent_repeats_make_one_row(
    client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    items = [{"text": f"text {i}", "model": "sentiment", "label": "bad"} for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: send_many(client, *items), range(8)))
    assert sum(each["created"] for each in found) == 20
    assert sum(each["unchanged"] for each in found) == 140
    assert len(all_feedback(database)) == 20


def test_partial_failures_name_the_item(keeping: TestClient, publish: Publish) -> None:
    publish()
    kept = predict(keeping, ["one", "two"])
    found = send_many(
        keeping,
        {"prediction_id": f"{kept}-1", "label": "bad"},
        {"prediction_id": kept, "label": "bad"},
        {"prediction_id": f"{kept}-2", "label": "bad"},
        {"prediction_id": uuid4().hex, "label": "bad"},
        {"prediction_id": f"{kept}-0", "label": "ugly"},
        {"text": "three", "model": "sentiment", "label": "good"},
        {"text": "three", "model": "missing", "label": "good"},
        {"text": "three", "model": "???", "label": "good"},
    )
    outcomes = [(each["index"], each["status"], each["error"]) for each in found["data"]]
    codes = [(error or {}).get("code") for _, _, error in outcomes]
    assert codes == [
        *(None, "prediction_ambiguous", "prediction_not_kept", "prediction_not_kept"),
        *("feedback_label_unknown", None, "model_not_found", "invalid_model_ref"),
    ]
    assert [index for index, _, _ in outcomes] == list(range(8))
    assert (found["created"], found["failed"]) == (2, 6)
    assert [row["text"] for row in listed(keeping)] == ["three", "two"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"label": "bad"}, "validation_failed"),
        ({"text": TEXT, "label": "bad"}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment"}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "label": "bad", "value": 1}, "validation_failed"),
        ({"text": " \n", "model": "sentiment", "label": "bad"}, "validation_failed"),
        ({"text": "a\x00", "model": "sentiment", "label": "bad"}, "validation_failed"),
        ({"text": "x" * 100_001, "model": "sentiment", "label": "bad"}, "validation_failed"),
        ({"text": 7, "model": "sentiment", "label": "bad"}, "validation_failed"),
        ({"text_pair": "x", "prediction_id": "0" * 32, "label": "bad"}, "validation_failed"),
        ({"prediction_id": "nonsense", "label": "bad"}, "validation_failed"),
        ({"prediction_id": "0" * 32 + "-x", "label": "bad"}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "label": " "}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "label": "x" * 257}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "value": True}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "value": "3"}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "value": 1e31}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "label": "bad", "by": ""}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "label": "bad", "sampled": 1}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "label": "bad", "items": []}, "validation_failed"),
        ({"items": []}, "validation_failed"),
        ({"items": [{"label": "bad"}]}, "validation_failed"),
        ({"items": [{"text": "x", "model": "y", "label": "z"}] * 1001}, "validation_failed"),
        ({"text": TEXT, "model": "sentiment", "labels": ["bad"]}, "feedback_label_form"),
        ({"text": TEXT, "model": "sentiment", "value": 3}, "feedback_label_form"),
        ({"text": TEXT, "model": "sentiment", "label": "ugly"}, "feedback_label_unknown"),
        ({"text": TEXT, "model": "sentiment", "label": "bad", "target": "a"},
         "feedback_target_unknown"),
        ({"text": TEXT, "text_pair": "x", "model": "sentiment", "label": "bad"},
         "feedback_pair_unexpected"),
    ],
)  # fmt: skip
def test_bad_items_are_rejected(
    body: Json, code: str, client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    assert refusal(client, **body) == (422, code)
    assert all_feedback(database) == []


def test_an_error_in_one_of_many_says_where(client: TestClient) -> None:
    items = [{"text": TEXT, "model": "sentiment", "label": "bad"}, {"text": TEXT, "label": "bad"}]
    refused = client.post(ROUTE, json={"items": items})
    assert refused.status_code == 422
    assert "items.1" in str(refused.json()["errors"])


def test_a_new_label_must_be_announced(client: TestClient, publish: Publish) -> None:
    publish()
    refused = client.post(ROUTE, json={"text": TEXT, "model": "sentiment", "label": "ugly"})
    assert "'bad', 'good'" in refused.json()["detail"]
    assert "new_label" in refused.json()["detail"]
    send(client, text=TEXT, model="sentiment", label="  ugly ", new_label=True)
    assert listed(client)[0]["label"] == "ugly"


def test_labels_of_imported_models_that_are_not_normalized(
    keeping: TestClient, publish: Publish, database: Database, tmp_path: Path
) -> None:
    labels = ("cafe\u0301", " bar")
    publish(artifact=make_artifact(tmp_path / "a", labels=labels, top_label=labels[0]))
    for label, changed in (("caf\u00e9", False), ("cafe\u0301", False), ("bar", True)):
        send(keeping, prediction_id=predict(keeping), label=label)
        assert listed(keeping)[0]["changed"] is changed
    assert refusal(keeping, text=TEXT, model="sentiment", label="caf")[1] == (
        "feedback_label_unknown"
    )


def test_the_model_may_be_named_but_must_be_right(keeping: TestClient, publish: Publish) -> None:
    publish()
    publish("other")
    prediction_id = predict(keeping, model="sentiment")
    send(keeping, prediction_id=prediction_id, model="sentiment@production", label="bad")
    code = refusal(keeping, prediction_id=prediction_id, model="other", label="bad")
    assert code == (422, "prediction_of_other_model")


def test_other_tasks(keeping: TestClient, publish: Publish, tmp_path: Path) -> None:
    publish("topics", artifact=make_multi_label_artifact(tmp_path / "a"))
    publish("stars", artifact=make_regression_artifact(tmp_path / "b", pairs=True))
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "c"))
    by_text = {"text": TEXT, "model": "topics"}
    send(keeping, **by_text, labels=["plot", "acting", "plot"])
    assert refusal(keeping, **by_text, labels=["drama"]) == (422, "feedback_label_unknown")
    assert refusal(keeping, **by_text, label="plot") == (422, "feedback_label_form")
    send(keeping, prediction_id=predict(keeping, model="topics"), labels=[])
    none, several = listed(keeping, "topics")
    assert (several["label"], several["task"]) == (["acting", "plot"], "multi_label")
    assert (none["label"], none["answer"], none["changed"]) == ([], ["acting"], True)

    pair = {"text": "a query", "text_pair": "a film"}
    prediction_id = predict(keeping, pair, model="stars")
    send(keeping, prediction_id=prediction_id, value=4)
    send(keeping, **pair, model="stars", value=2.5)
    assert refusal(keeping, text="a query", model="stars", value=1) == (
        *(422, "feedback_pair_required"),
    )
    by_hand, by_id = listed(keeping, "stars")
    assert (by_id["label"], by_id["text"], by_id["text_pair"]) == (4.0, *pair.values())
    assert isinstance(by_id["answer"], float)
    assert by_hand["text_pair"] == "a film"

    prediction_id = predict(keeping, model="mails")
    assert refusal(keeping, prediction_id=prediction_id, label="refund") == (
        *(422, "feedback_target_required"),
    )
    missing = refusal(keeping, prediction_id=prediction_id, target="mood", label="refund")
    assert missing == (422, "feedback_target_unknown")
    send(keeping, prediction_id=prediction_id, target="topic", label="refund")
    send(keeping, prediction_id=prediction_id, target="flags", labels=["rude"])
    send(keeping, prediction_id=prediction_id, target="stars", value=1)
    stars, flags, topic = listed(keeping, "mails")
    assert (topic["target"], topic["answer"], topic["changed"]) == ("topic", "refund", False)
    assert (flags["target"], flags["label"], stars["label"]) == ("flags", ["rude"], 1.0)
    sent = keeping.post("/models/mails/predict", params={"target": "topic"}, json={"inputs": "x"})
    send(keeping, prediction_id=sent.headers["X-Prediction-Id"], label="billing")
    newest = listed(keeping, "mails")[0]
    assert (newest["target"], newest["answer"], newest["changed"]) == ("topic", "refund", True)


def test_a_text_without_an_answer_is_neither_right_nor_wrong(
    keeping: TestClient, publish: Publish
) -> None:
    publish()
    send(keeping, prediction_id=predict(keeping, abstain_below=0.9999), label="bad")
    (row,) = listed(keeping)
    assert (row["answer"], row["changed"]) == (None, None)


def test_feedback_of_a_version_that_was_deleted(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    kept = add_prediction(database, number=7)
    code = refusal(keeping, prediction_id=kept.hex, label="bad")
    assert code == (404, "model_not_found")


def test_ordered_labels(client: TestClient, publish: Publish, tmp_path: Path) -> None:
    stars = ("1", "2", "3")
    artifact = make_artifact(
        tmp_path / "a", labels=stars, top_label="3", task=SingleLabelSpec(ordered=True)
    )
    publish("stars", artifact=artifact)
    send(client, text=TEXT, model="stars:1", label="2")
    assert refusal(client, text=TEXT, model="stars:1", label="4") == (
        *(422, "feedback_label_unknown"),
    )


def test_delete(client: TestClient, publish: Publish) -> None:
    publish()
    made = send(client, text=TEXT, model="sentiment", label="bad")
    assert client.delete(f"{ROUTE}/{made['id']}").status_code == 204
    assert listed(client) == []
    for missing in (made["id"], "nonsense"):
        refused = client.delete(f"{ROUTE}/{missing}")
        assert (refused.status_code, refused.json()["code"]) == (404, "feedback_not_found")


def test_deletion_waits_for_those_who_are_changing_it(
    client: TestClient, publish: Publish, database: Database
) -> None:
    """Otherwise their change would find no row, which is an internal error."""
    publish()
    made = send(client, text=TEXT, model="sentiment", label="bad")
    changing, released = Event(), Event()

    def change() -> None:
        with database.write() as session:
            privacy.lock_text_storage(session)
            row = session.get_one(Feedback, UUID(made["id"]))
            changing.set()
            assert not released.wait(1.0)
            row.label = "good"

    with ThreadPoolExecutor(1) as pool:
        changed = pool.submit(change)
        assert changing.wait(20)
        assert client.delete(f"{ROUTE}/{made['id']}").status_code == 204
        released.set()
        changed.result(20)
    assert all_feedback(database) == []


def test_scopes(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey], publish: Publish
) -> None:
    """Who may only add feedback sees and deletes nothing of others."""
    publish()

    def headers(*scopes: str, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {new_key(*scopes, name=name).text}"}

    app, other = (headers("feedback:write", name=name) for name in ("app", "other"))
    curator = headers("feedback:write", "datasets:read", "datasets:write", name="curator")
    reader = headers("models:read", "predict", name="reader")
    body = {"text": TEXT, "model": "sentiment", "label": "bad", "by": "ada"}
    call = anonymous_client.request
    assert call("POST", ROUTE, json=body).status_code == 401
    assert call("POST", ROUTE, json=body, headers=reader).status_code == 403
    made = call("POST", ROUTE, json=body, headers=app).json()["data"][0]
    path = "/v1/models/sentiment/feedback"
    for each in (app, reader):
        assert call("GET", path, headers=each).status_code == 403
    (row,) = call("GET", path, headers=curator).json()["data"]
    assert row["by"] == "app/ada"
    assert call("DELETE", f"{ROUTE}/{made['id']}", headers=other).json()["code"] == "scope_missing"
    assert call("DELETE", f"{ROUTE}/{made['id']}", headers=app).status_code == 204
    for repeated in (body, body | {"label": "good"}):
        call("POST", ROUTE, json=body, headers=app)
        following = headers("feedback:write", name="app")  # the next key of the same application
        made = call("POST", ROUTE, json=repeated, headers=following).json()["data"][0]
        deleted = call("DELETE", f"{ROUTE}/{made['id']}", headers=following)
        assert deleted.status_code == 204, deleted.text
    again = call("POST", ROUTE, json=body, headers=app).json()["data"][0]
    assert call("DELETE", f"{ROUTE}/{again['id']}", headers=curator).status_code == 204
    for method, path, needed in (
        ("POST", "/v1/models/sentiment/review", ("feedback:write", "datasets:read")),
        ("GET", "/v1/models/sentiment/review", ("datasets:read",)),
        ("GET", "/v1/models/sentiment/live-accuracy", ("models:read",)),
        ("POST", "/v1/models/sentiment/feedback/dataset", ("datasets:read", "datasets:write")),
        ("POST", "/v1/forget", ("feedback:write", "datasets:write")),
    ):
        for left_out in needed:
            scopes = [each for each in needed if each != left_out] or ["jobs:read"]
            sent = call(method, path, json={}, headers=headers(*scopes, name="some"))
            assert (sent.status_code, sent.json()["code"]) == (403, "scope_missing"), path
