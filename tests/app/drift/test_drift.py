"""Drift checks over HTTP."""

import json
import time
from typing import Any
from uuid import uuid4

import pytest
from dirty_equals import IsPartialDict
from sqlalchemy import delete
from starlette.testclient import TestClient

from app.database.base import new_id
from app.database.engines import Database
from app.drift.tables import DriftCheck
from app.queue.tables import Job
from app.resources import Resources
from app.traffic import repository as traffic
from app.traffic.tables import PredictionCount, PredictionOutcome
from tests.app.drift.conftest import BILLS, FILMS, Publish, Serving, Train, keep, texts
from tests.kept_predictions import kept_predictions
from tests.webhook_rows import create_webhook, deliveries

Json = dict[str, Any]
ROUTE = "/v1/models/sentiment/drift"
CHECKS = f"{ROUTE}/checks"


def drift(client: TestClient, **query: Any) -> Json:
    sent = client.get(ROUTE, params=query)
    assert sent.status_code == 200, sent.text
    found: Json = sent.json()
    return found


def check(client: TestClient) -> Json:
    sent = client.post(CHECKS)
    assert sent.status_code == 201, sent.text
    found: Json = sent.json()
    return found


def refusal(client: TestClient, path: str = CHECKS, method: str = "POST") -> tuple[int, str, str]:
    sent = client.request(method, path)
    problem = sent.json()
    assert problem["detail"].endswith("."), problem
    return sent.status_code, problem["code"], problem["detail"]


@pytest.mark.usefixtures("in_child")
def test_predictions_to_alarm_to_webhook(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    """The real way: predicted texts are kept, compared in a child process, and reported."""
    train(keeping)
    create_webhook(resources, "https://127.0.0.1:9/", events=["drift.detected"])
    assert drift(keeping)["state"] == "too_few_texts"
    for half in (texts(FILMS, 40, seed=1), texts(BILLS, 40, seed=2)):
        sent = keeping.post("/predict", json={"inputs": half})
        assert sent.status_code == 200
    made = check(keeping)
    assert made == {
        "id": made["id"],
        "version": "sentiment:1",
        "since": None,
        "until": made["until"],
        "recent_texts": 80,
        "training_texts": 200,
        "p_value": 0.002,
        "auc": made["auc"],
        "level": 0.01,
        "alarm": True,
        "automatic": False,
        "created_at": made["created_at"],
    }
    assert made["auc"] > 0.6
    (event,) = deliveries(resources.database)
    assert json.loads(event.body) == IsPartialDict(
        type="drift.detected",
        data={
            "id": made["id"],
            "name": "sentiment",
            "version": 1,
            "p_value": 0.002,
            "auc": made["auc"],
            "level": 0.01,
            "recent_texts": 80,
        },
    )
    view = drift(keeping)
    assert (view["state"], view["newest_check"], view["new_texts"]) == ("drift", made, 0)
    assert (view["predicted"], view["abstained"]) == (80, {"recent": 0.0, "before": None})
    detail = keeping.get(f"{CHECKS}/{made['id']}").json()
    assert len(detail["most_different"]) == 10
    assert all(set(each["text"].split()) & set(BILLS) for each in detail["most_different"])
    assert keeping.get(CHECKS).json() == {"data": [made], "next": None}


def test_the_same_distribution_is_no_drift(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    create_webhook(resources, "https://127.0.0.1:9/")
    keep(resources.database, texts(FILMS, 80, seed=3))
    made = check(keeping)
    assert (made["alarm"], made["p_value"] > 0.01) == (False, True)
    assert drift(keeping)["state"] == "no_drift"
    assert [each.type for each in deliveries(resources.database)] == []


def test_an_alarm_is_reported_once_until_it_ends(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    create_webhook(resources, "https://127.0.0.1:9/", events=["drift.detected"])
    database, alarms = resources.database, []
    for seed, words in enumerate((BILLS, BILLS, FILMS, BILLS), start=3):
        keep(database, texts(words, 60, seed))
        alarms.append(check(keeping)["alarm"])
    assert alarms == [True, True, False, True]
    assert len(deliveries(database)) == 2  # of the first and of the last


def test_each_text_counts_in_one_check_and_once(
    keeping: TestClient, train: Train, database: Database
) -> None:
    train(keeping)
    keep(database, texts(FILMS, 60, seed=1))
    first = check(keeping)
    assert refusal(keeping)[:2] == (409, "too_few_drift_texts")
    keep(database, texts(FILMS, 49, seed=2))
    repeated = texts(FILMS, 1, seed=4)[0]
    keep(database, [repeated] * 40, text_hash="same")
    keep(database, texts(BILLS, 40, seed=5), number=2)  # of another version
    keep(database, [None] * 40)  # type: ignore[list-item] # only scores
    second = check(keeping)
    assert (second["recent_texts"], second["since"]) == (50, first["until"])
    listed = keeping.get(CHECKS, params={"limit": 1}).json()
    assert listed["data"] == [second]
    following = keeping.get(CHECKS, params={"limit": 1, "after": listed["next"]}).json()
    assert following == {"data": [first], "next": None}


def test_two_checks_of_the_same_texts_are_one(
    keeping: TestClient, train: Train, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(keeping)
    create_webhook(resources, "https://127.0.0.1:9/", events=["drift.detected"])
    keep(resources.database, texts(BILLS, 60, seed=1))
    other: list[Json] = []
    draw = traffic.draw_distinct_texts

    def draw_late(*args: Any, **kwargs: Any) -> Any:
        drawn = draw(*args, **kwargs)
        if not other:
            other.append({})
            other[0] = check(keeping)
        return drawn

    monkeypatch.setattr(traffic, "draw_distinct_texts", draw_late)
    assert check(keeping) == other[0]
    assert len(keeping.get(CHECKS).json()["data"]) == len(deliveries(resources.database)) == 1


def test_forgotten_and_expired_texts_leave_the_check(
    keeping: TestClient, train: Train, database: Database
) -> None:
    train(keeping)
    for text in (*texts(FILMS, 40, seed=1), *texts(BILLS, 40, seed=2)):
        keeping.post("/predict", json={"inputs": text})
    path = f"{CHECKS}/{check(keeping)['id']}"
    shown = keeping.get(path).json()["most_different"]
    text = shown[3]["text"]
    forgotten = keeping.post("/v1/forget", json={"text": text, "search_datasets": False})
    assert forgotten.json()["removed"]["predictions"] == 1
    assert keeping.get(path).json()["most_different"] == [*shown[:3], *shown[4:]]
    with database.read() as session:
        stored = [str(vars(each)) for each in session.query(DriftCheck)]
    assert not any(word in row for row in stored for word in BILLS)
    with database.write() as session:
        for row in kept_predictions(database):
            session.delete(row)
    assert keeping.get(path).json()["most_different"] == []


def test_pairs_are_compared_as_pairs(keeping: TestClient, train: Train, database: Database) -> None:
    pairs = zip(texts(FILMS, 100, seed=0), texts(BILLS, 100, seed=9), strict=True)
    rows = [f"{first},{second},{i % 2}" for i, (first, second) in enumerate(pairs)]
    train(
        keeping,
        rows=rows,
        header="text,other,label",
        fields={"text_pair_column": "other"},
    )
    swapped = zip(texts(BILLS, 60, seed=3), texts(FILMS, 60, seed=4), strict=True)
    for first, second in swapped:
        keep(database, [first], text_pair=second)
    made = check(keeping)
    assert (made["alarm"], made["recent_texts"]) == (True, 60)
    (shown, *_) = keeping.get(f"{CHECKS}/{made['id']}").json()["most_different"]
    assert set(shown["text_pair"].split()) & set(FILMS)


def test_only_the_train_split_counts(keeping: TestClient, train: Train, database: Database) -> None:
    rows = [
        *(f"{text},{i % 2},train" for i, text in enumerate(texts(FILMS, 60, seed=0))),
        *(f"{text},{i % 2},test" for i, text in enumerate(texts(BILLS, 60, seed=1))),
    ]
    train(keeping, rows=rows, header="text,label,split")
    keep(database, texts(BILLS, 60, seed=2))
    assert (check(keeping)["training_texts"], drift(keeping)["state"]) == (60, "drift")


def test_label_shares_come_from_counts(serving: Serving, train: Train, database: Database) -> None:
    client = serving()  # which keeps no texts
    train(client)
    hour = int(time.time()) // 3600 * 3600
    counts = {  # (days ago, outcome, label): count
        (1, PredictionOutcome.TEXT, ""): 10,
        (1, PredictionOutcome.LABEL, "good"): 6,
        (1, PredictionOutcome.LABEL, "bad"): 2,
        (1, PredictionOutcome.ABSTAINED, ""): 2,
        (20, PredictionOutcome.TEXT, ""): 40,
        (20, PredictionOutcome.LABEL, "good"): 10,
        (20, PredictionOutcome.LABEL, "bad"): 30,
        (60, PredictionOutcome.TEXT, ""): 1000,
    }
    with database.write() as session:
        for (days, outcome, label), count in counts.items():
            start = hour - days * 86_400
            key = {"model": "sentiment", "number": 1, "start": start, "outcome": outcome}
            session.add(PredictionCount(**key, label=label, count=count))
            session.add(PredictionCount(**{**key, "number": 2}, label=label, count=7 * count))
    view = drift(client)
    assert view == IsPartialDict(
        version="sentiment:1",
        state="not_kept",
        newest_check=None,
        problem=None,
        predicted=10,
        predicted_before=40,
        abstained={"recent": 0.2, "before": 0.0},
        labels=[
            {"label": "bad", "recent": 0.2, "before": 0.75, "training": 0.5},
            {"label": "good", "recent": 0.6, "before": 0.25, "training": 0.5},
        ],
    )
    assert drift(client, days=30)["predicted"] == 50
    with database.write() as session:  # as of a model with the targets flag and topic
        for outcome, label, count in (
            (PredictionOutcome.TEXT, "", 6),
            (PredictionOutcome.TEXT, "topic", 14),
            (PredictionOutcome.ABSTAINED, "topic", 4),
            (PredictionOutcome.LABEL, "flag/yes", 3),
            (PredictionOutcome.LABEL, "topic/refund", 10),
        ):
            key = {"model": "sentiment", "number": 1, "start": hour, "outcome": outcome}
            session.add(PredictionCount(**key, label=label, count=count))
    view = drift(client, days=0.5)
    assert (view["predicted"], view["abstained"]["recent"]) == (20, 0.2)
    recent = {each["label"]: each["recent"] for each in view["labels"]}
    assert (recent["flag/yes"], recent["topic/refund"]) == (0.5, 0.5)
    status, code, message = refusal(client)
    assert (status, code) == (409, "drift_texts_not_kept")
    assert "LORAWORKS_KEEP_TRAFFIC" in message


def test_few_days_are_compared_with_the_hours_before(
    serving: Serving, train: Train, database: Database
) -> None:
    client = serving()
    train(client)
    hour = int(time.time()) // 3600 * 3600
    with database.write() as session:
        for hours in range(48):
            key = {
                "model": "sentiment",
                "number": 1,
                "outcome": PredictionOutcome.TEXT,
                "label": "",
            }
            session.add(PredictionCount(**key, start=hour - hours * 3600, count=1))
    view = drift(client, days=0.25)  # the current hour has just begun, or is nearly over
    assert (view["predicted"], view["predicted_before"]) == (7, 24)


def test_a_version_without_training_texts(
    keeping: TestClient, train: Train, publish: Publish, database: Database
) -> None:
    keep(database, texts(FILMS, 60, seed=1))
    publish(imported=True)
    assert refusal(keeping)[:2] == (409, "training_data_unknown")
    assert drift(keeping)["state"] == "too_few_texts"


@pytest.mark.parametrize(
    ("source", "code"),
    [("hub:imdb", "training_data_not_stored"), ("old.csv", "training_data_unknown")],
)
def test_training_data_elsewhere(
    source: str, code: str, keeping: TestClient, train: Train, database: Database
) -> None:
    train(source=source)
    keep(database, texts(FILMS, 60, seed=1))
    status, found, message = refusal(keeping)
    assert (status, found, source in message) == (409, code, True)


def test_training_data_that_was_deleted(
    keeping: TestClient, train: Train, database: Database
) -> None:
    job_id = train(keeping)
    assert keeping.delete("/v1/datasets/films:1").status_code == 204
    assert refusal(keeping)[:2] == (409, "training_data_deleted")
    assert drift(keeping)["labels"] == []
    with database.write() as session:
        session.execute(delete(Job).where(Job.id == job_id))
    assert refusal(keeping)[:2] == (409, "training_data_unknown")


def test_a_sample_is_training_data(keeping: TestClient, train: Train, database: Database) -> None:
    train(source="rotten-tomatoes")
    keep(database, texts(BILLS, 60, seed=1))
    made = check(keeping)
    assert (made["alarm"], made["training_texts"]) == (True, 1000)
    assert {each["label"]: each["training"] for each in drift(keeping)["labels"]} == {
        "negative": 0.5,
        "positive": 0.5,
    }


def test_too_few_training_texts(keeping: TestClient, train: Train, database: Database) -> None:
    rows = [f"{text},{i % 2}" for i, text in enumerate(texts(FILMS, 49, seed=0))]
    train(keeping, rows=rows)
    keep(database, texts(FILMS, 60, seed=1))
    status, code, message = refusal(keeping)
    assert (status, code, "49" in message) == (409, "too_few_training_texts", True)


def test_too_few_texts_that_differ_where_they_are_compared(
    keeping: TestClient, train: Train, database: Database
) -> None:
    train(keeping)
    start = "plot " * 1200
    keep(database, [f"{start}{text}" for text in texts(FILMS, 60, seed=1)])
    status, code, message = refusal(keeping)
    assert (status, code, "; 1 are kept" in message) == (409, "too_few_drift_texts", True)


def test_unknown_things(keeping: TestClient, train: Train, database: Database) -> None:
    for method, path in (("GET", ROUTE), ("GET", CHECKS), ("POST", CHECKS)):
        assert refusal(keeping, path.replace("sentiment", "other"), method)[0] == 404
    train(keeping)
    for check_id in (new_id(), uuid4(), "x"):
        found = refusal(keeping, f"{CHECKS}/{check_id}", "GET")
        assert found[:2] == (404, "drift_check_not_found")
    assert keeping.get(ROUTE, params={"days": 0}).status_code == 422
    assert keeping.get(CHECKS, params={"after": "x"}).status_code == 422


def test_scopes(anonymous_client: TestClient, new_key: Any) -> None:
    wanted = {
        ("GET", ROUTE): "models:read",
        ("GET", CHECKS): "models:read",
        ("POST", CHECKS): "models:admin",
        ("GET", f"{CHECKS}/{uuid4()}"): "datasets:read",
    }
    for (method, path), scope in wanted.items():
        allowed = {"Authorization": f"Bearer {new_key(scope).text}"}
        others = {"models:read", "models:admin", "datasets:read"} - {scope}
        refused = {"Authorization": f"Bearer {new_key(*others).text}"}
        assert anonymous_client.request(method, path, headers=allowed).status_code == 404
        assert anonymous_client.request(method, path, headers=refused).status_code == 403
