"""Reviews of random samples, and the accuracy that they show."""

import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from dirty_equals import IsPartialDict
from scipy.stats import beta
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer
from sqlalchemy import Connection, Engine, delete, event, insert, update
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import new_id
from app.database.engines import Database
from app.feedback import repository as feedback_repository
from app.feedback import service as feedback_service
from app.feedback.live_accuracy import estimate_main_metric, estimate_multi_label_macro_f1
from app.feedback.tables import Feedback
from app.traffic import repository as traffic
from app.traffic.tables import KeptPrediction, PredictionCount, PredictionOutcome
from lora_core.specs.encoded_labels import encode_label_set
from tests.app.feedback.conftest import Publish
from tests.app.feedback.test_feedback import Json, listed, predict, send
from tests.kept_predictions import add_feedback, add_prediction, all_feedback, kept_predictions
from tests.slow import on_both_databases
from tests.tiny_artifact import make_several_targets_artifact

ROUTE = "/v1/models/sentiment/review"


def review(client: TestClient, count: int = 60, model: str = "sentiment") -> Json:
    sent = client.post(f"/v1/models/{model}/review", json={"count": count})
    assert sent.status_code == 200, sent.text
    found: Json = sent.json()
    return found


def live_accuracy(client: TestClient, model: str = "sentiment", **query: Any) -> list[Json]:
    sent = client.get(f"/v1/models/{model}/live-accuracy", params=query)
    assert sent.status_code == 200, sent.text
    found: list[Json] = sent.json()
    return found


def test_review_to_live_accuracy(keeping: TestClient, publish: Publish) -> None:
    publish()
    for i in range(12):
        predict(keeping, f"text {i}")
    first = review(keeping, 5)
    assert (first["version"], first["drawn"], first["already_labeled"]) == ("sentiment:1", 5, 0)
    text = first["data"][0]
    assert text == {
        "prediction_id": text["prediction_id"],
        "text": text["text"],
        "text_pair": None,
        "answer": {"label": "good"},
        "scores": IsPartialDict({"good": text["scores"]["good"]}),
        "missing": ["label"],
    }
    again = review(keeping, 5)
    assert (again["drawn"], again["data"]) == (0, first["data"])  # nothing was labeled yet
    for each, label in zip(first["data"], ("good", "good", "bad", "good"), strict=False):
        send(keeping, prediction_id=each["prediction_id"], label=label)
    assert keeping.get(ROUTE).json() == {**again, "data": first["data"][4:]}
    second = review(keeping, 5)
    assert (second["drawn"], len(second["data"])) == (4, 5)
    (found,) = live_accuracy(keeping)
    assert found == {
        "version": "sentiment:1",
        "target": None,
        "task": "single_label",
        "predicted": 12,
        "abstained": 0,
        "kept": 12,
        "sampled": 9,
        "labeled": 4,
        "since": found["since"],
        "estimate": {
            "metric": "accuracy",
            "value": 0.75,
            "low": pytest.approx(0.3006, abs=1e-4),  # Wilson, by R's binom.confint(3, 4)
            "high": pytest.approx(0.9544, abs=1e-4),
            "texts": 4,
            "other_texts": 0,
        },
        "with_scores": None,
        "further": [],
        "corrections": {"texts": 0, "changed": 0},
    }
    assert review(keeping, 200)["drawn"] == 3  # all there are


def test_the_sample_is_uniform_also_over_texts_with_feedback(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    """Each of 20 texts is drawn equally often; those with feedback count without being shown."""
    publish()
    ids = [add_prediction(database) for _ in range(20)]
    corrected = set(ids[:10])
    for each in corrected:
        send(keeping, prediction_id=each.hex, label="bad")
    assert live_accuracy(keeping)[0]["corrections"] == {"texts": 10, "changed": 10}
    assert live_accuracy(keeping)[0]["estimate"] is None
    drawn = review(keeping, 8)
    sampled = {row.prediction_id for row in kept_predictions(database) if row.sampled_at}
    assert (drawn["drawn"], len(sampled)) == (8, 8)
    shown = {UUID(hex=each["prediction_id"][:32]) for each in drawn["data"]}
    assert shown == sampled - corrected
    assert drawn["already_labeled"] == len(sampled & corrected)
    for each in shown:
        send(keeping, prediction_id=each.hex, label="good")
    (found,) = live_accuracy(keeping)
    assert (found["labeled"], found["estimate"]["value"]) == (8, len(shown) / 8)
    assert found["corrections"]["texts"] == 10 - len(sampled & corrected)


def test_feedback_from_before_the_draw_waits_for_its_turn(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    """At first only texts with feedback, mostly errors, are labeled: they are no random sample. So
    they count in the order of the draw, when later ones were labeled."""
    publish()
    corrected = {add_prediction(database) for _ in range(10)}
    for _ in range(20):
        add_prediction(database)
    for each in corrected:
        send(keeping, prediction_id=each.hex, label="bad")
    waiting = review(keeping, 24)["data"]
    assert live_accuracy(keeping)[0]["estimate"] is None
    rows = [row for row in kept_predictions(database) if row.sampled_at is not None]
    order = [row.prediction_id for row in sorted(rows, key=lambda row: row.sampled_at or 0.0)]
    for number, each in enumerate(waiting, start=1):
        send(keeping, prediction_id=each["prediction_id"], label="good")
        last = order.index(UUID(hex=each["prediction_id"][:32])) + 1
        counted = order if number == len(waiting) else order[:last]
        wrong = len(corrected & set(counted))
        (found,) = live_accuracy(keeping)
        assert (found["labeled"], found["corrections"]["texts"]) == (len(counted), 10 - wrong)
        assert found["estimate"]["value"] == pytest.approx(1 - wrong / len(counted))


def test_a_sample_that_has_feedback_already_counts_at_once(
    keeping: TestClient, publish: Publish, database: Database, tmp_path: Path
) -> None:
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "a"))
    prediction_id = predict(keeping, model="mails")
    send(keeping, prediction_id=prediction_id, target="topic", label="billing")
    (text,) = review(keeping, model="mails")["data"]
    assert text["missing"] == ["flags", "stars"]
    assert [row.sampled for row in all_feedback(database)] == [True]


@pytest.mark.slow  # a hundred draws
def test_every_text_is_drawn_equally_often(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    times: Counter[UUID] = Counter()
    ids = [add_prediction(database) for _ in range(10)]
    for _ in range(100):
        review(keeping, 5)
        times.update(row.prediction_id for row in kept_predictions(database) if row.sampled_at)
        with database.write() as session:
            session.execute(update(KeptPrediction).values(sampled_at=None))
    deviation = 5 * math.sqrt(100 * 0.5 * 0.5)
    assert all(times[each] == pytest.approx(50, abs=deviation) for each in ids)


def test_texts_without_an_answer_are_not_drawn(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    add_prediction(database, abstained=True)
    wanted = add_prediction(database)
    assert [each["prediction_id"] for each in review(keeping)["data"]] == [f"{wanted.hex}-0"]


def test_only_the_version_that_was_asked_for(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    publish(promote=False)
    first, second = add_prediction(database), add_prediction(database, number=2)
    add_prediction(database, model="other")
    for ref, wanted in (("sentiment", first), ("sentiment:2", second)):
        found = review(keeping, model=ref)
        assert [each["prediction_id"] for each in found["data"]] == [f"{wanted.hex}-0"]
        send(keeping, prediction_id=wanted.hex, label="bad")
    assert [each["version"] for each in live_accuracy(keeping)] == ["sentiment:2", "sentiment:1"]


def test_several_targets_are_labeled_one_by_one(
    keeping: TestClient, publish: Publish, tmp_path: Path
) -> None:
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "a"))
    prediction_id = predict(keeping, model="mails")
    (text,) = review(keeping, model="mails")["data"]
    assert text["missing"] == ["flags", "stars", "topic"]
    assert text["answer"]["topic"] == "refund"
    send(keeping, prediction_id=prediction_id, target="topic", label="billing")
    assert keeping.get("/v1/models/mails/review").json()["data"][0]["missing"] == ["flags", "stars"]
    send(keeping, prediction_id=prediction_id, target="flags", labels=[])
    send(keeping, prediction_id=prediction_id, target="stars", value=3)
    assert keeping.get("/v1/models/mails/review").json()["data"] == []
    found = {each["target"]: each for each in live_accuracy(keeping, "mails")}
    assert found["topic"]["estimate"]["value"] == 0.0
    assert found["stars"]["estimate"] is None  # one text is too few for a bootstrap
    assert found.keys() == {"flags", "stars", "topic"}


def test_a_target_counts_the_requests_that_asked_for_it(
    keeping: TestClient, publish: Publish, tmp_path: Path
) -> None:
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "a"))
    ids = [predict(keeping, text, model="mails") for text in ("one", "two")]
    path, params = "/models/mails/predict", {"target": "topic"}
    for text in ("three", "four", "five"):
        keeping.post(path, params=params, json={"inputs": text})
    assert review(keeping, model="mails")["drawn"] == 5
    for target, right in (("topic", {"label": "billing"}), ("flags", {"labels": []})):
        send(keeping, prediction_id=ids[0], target=target, **right)
    found = {each["target"]: each for each in live_accuracy(keeping, "mails")}
    names = ("predicted", "kept", "sampled")
    assert [found["topic"][name] for name in names] == [5, 5, 5]
    assert [found["flags"][name] for name in names] == [2, 2, 2]


@pytest.mark.parametrize(
    ("body", "code"),
    [({"count": count}, "validation_failed") for count in (0, 201, "5", 2.5)]
    + [({"texts": 5}, "validation_failed")],
)
def test_bad_reviews(body: Json, code: str, keeping: TestClient, publish: Publish) -> None:
    publish()
    refused = keeping.post(ROUTE, json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, code)


def test_nothing_to_review(client: TestClient, publish: Publish) -> None:
    publish()
    predict(client)
    refused = client.post(ROUTE, json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "traffic_not_kept")
    assert client.get(ROUTE).json()["data"] == []
    assert live_accuracy(client) == []
    for path in ("review", "live-accuracy", "feedback"):
        refused = client.get(f"/v1/models/missing/{path}")
        assert (refused.status_code, refused.json()["code"]) == (404, "model_not_found")
    for days in (0, -1, 401, "x"):
        refused = client.get("/v1/models/sentiment/live-accuracy", params={"days": days})
        assert refused.status_code == 422


# -- The estimates against independent formulas ----------------------------------------------------


def clopper_pearson(right: int, texts: int) -> tuple[float, float]:
    """The exact interval, which is wider than Wilson's and contains most of it."""
    low = beta.ppf(0.025, right, texts - right + 1) if right else 0.0
    high = beta.ppf(0.975, right + 1, texts - right) if right < texts else 1.0
    return float(low), float(high)


def wilson(right: int, texts: int) -> tuple[float, float]:
    """The roots p of (right/texts - p)² = z² p (1 - p) / texts, found as a polynomial's."""
    z2, share = 1.959963984540054**2, right / texts
    roots = np.roots([1 + z2 / texts, -2 * share - z2 / texts, share**2])
    return float(min(roots)), float(max(roots))


def test_accuracy_is_that_of_sampled_texts_alone(
    client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    for i in range(50):
        add_feedback(database, label="good" if i < 43 else "bad")
    for i in range(57):  # volunteered: they are mostly errors
        add_feedback(database, sampled=False, label="bad" if i < 41 else "good")
    add_feedback(database, sampled=False, answer=None, prediction_id=None, subject="text-1")
    (found,) = live_accuracy(client)
    estimate = found["estimate"]
    assert (estimate["value"], estimate["texts"]) == (0.86, 50)
    assert (estimate["low"], estimate["high"]) == pytest.approx(wilson(43, 50))
    exact = clopper_pearson(43, 50)
    assert (estimate["low"], estimate["high"]) == pytest.approx(exact, abs=0.025)
    assert found["corrections"] == {"texts": 57, "changed": 41}


def test_macro_f1_is_not_defined_if_no_label_occurs() -> None:
    rows = [Feedback(answer="[]", label="[]") for _ in range(30)]
    estimate = estimate_main_metric(rows, "multi_label")
    assert estimate is not None
    assert estimate.value == 1
    assert estimate_multi_label_macro_f1(rows, "multi_label") == []
    rows[0].label = encode_label_set(["spam"])
    (found,) = estimate_multi_label_macro_f1(rows, "multi_label")
    assert (found.value, found.texts) == (0, 30)


def test_prediction_powered_estimate(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    """The value is that of PPI++ with its power-tuned weight, written out here."""
    publish()
    random, y, labeled, others = Random(5), [], [], []
    for i in range(400):
        score = random.choice((0.55, 0.95))
        label = "good" if random.random() < score else "bad"
        prediction_id = add_prediction(database, confidence={"": score})
        if i % 4 == 0:
            add_feedback(database, prediction_id=prediction_id, label=label, confidence=score)
            labeled.append(score)
            y.append(float(label == "good"))
        else:
            others.append(score)
    (found,) = live_accuracy(keeping)
    n, m = len(labeled), len(others)
    scores = np.array(labeled)
    covariance = float(((np.array(y) - np.mean(y)) * (scores - scores.mean())).mean())
    weight = covariance / ((1 + n / m) * np.var(labeled + others, ddof=1))
    assert 0 < weight < 1
    powered = found["with_scores"]
    expected = np.mean(y) + weight * (np.mean(others) - np.mean(labeled))
    assert powered["value"] == pytest.approx(expected)
    assert (powered["texts"], powered["other_texts"]) == (100, 300)
    plain = found["estimate"]
    assert powered["high"] - powered["low"] < plain["high"] - plain["low"]
    assert powered["low"] < powered["value"] < powered["high"]


def test_prediction_powered_with_predictions_of_a_single_target(
    keeping: TestClient, publish: Publish, database: Database, tmp_path: Path
) -> None:
    """Requests may ask for one of several targets; both kinds are labeled, and both are others."""
    publish("mails", artifact=make_several_targets_artifact(tmp_path / "a"))
    for i in range(80):
        alone = i % 2 == 0
        score = 0.6 if i % 4 < 2 else 0.9
        prediction_id = add_prediction(
            database,
            model="mails",
            task="single_label" if alone else "several_targets",
            target="topic" if alone else None,
            confidence={"" if alone else "topic": score},
        )
        if i < 40:
            add_feedback(
                database,
                prediction_id=prediction_id,
                model="mails",
                target="topic",
                label="good" if i % 3 else "bad",
                confidence=score,
            )
    found = live_accuracy(keeping, "mails")[0]["with_scores"]
    assert (found["texts"], found["other_texts"]) == (40, 40)


def test_prediction_powered_needs_texts_of_the_same_time(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    """Feedback outlives the predictions that are kept. That on older ones is left out."""
    publish()
    for _ in range(40):
        add_feedback(database, predicted_at=0.0)
        add_feedback(database, prediction_id=add_prediction(database))
    for _ in range(10):
        add_prediction(database)
    found = live_accuracy(keeping)[0]["with_scores"]
    assert (found["texts"], found["other_texts"]) == (40, 10)


def test_prediction_powered_with_more_predictions_than_are_read(
    keeping: TestClient, publish: Publish, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels on predictions before those that are read are left out: traffic may have changed."""
    publish()
    for _ in range(40):
        add_feedback(database, prediction_id=add_prediction(database))
    for i in range(60):
        prediction_id = add_prediction(database, confidence={"": 0.5})
        if i % 2:
            add_feedback(database, prediction_id=prediction_id, confidence=0.5)
    monkeypatch.setattr("app.feedback.live_accuracy.MAX_OTHER_TEXTS", 60)
    found = live_accuracy(keeping)[0]["with_scores"]
    assert (found["texts"], found["other_texts"]) == (30, 30)
    monkeypatch.setattr("app.feedback.live_accuracy.MAX_OTHER_TEXTS", 50)
    assert live_accuracy(keeping)[0]["with_scores"] is None


def test_days_count_from_the_prediction(
    client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    add_feedback(database, predicted_at=time.time() - 10 * 86_400, label="bad")
    add_feedback(database)
    values = [live_accuracy(client, days=days)[0]["estimate"]["value"] for days in (9, 11)]
    assert values == [1.0, 0.5]


def test_predictions_of_a_day_whose_hours_were_merged_are_counted(
    client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    add_feedback(database)
    now = time.time()
    day = (int(now) // 86_400 - 20) * 86_400
    with database.write() as session:
        key = {"model": "sentiment", "number": 1, "outcome": PredictionOutcome.TEXT, "label": ""}
        session.add(PredictionCount(**key, start=day, count=24))
    noon = (now - day) / 86_400 - 0.5
    assert live_accuracy(client, days=noon)[0]["predicted"] == 24
    assert live_accuracy(client, days=noon - 1)[0]["predicted"] == 0


def test_the_newest_of_several_authors_counts(
    client: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    prediction_id = new_id()
    for author, label, at in (("ada", "bad", 30.0), ("bob", "good", 40.0), ("eve", "bad", 20.0)):
        add_feedback(
            database, prediction_id=prediction_id, author=author, label=label, updated_at=at
        )
    estimate = live_accuracy(client)[0]["estimate"]
    assert (estimate["texts"], estimate["value"]) == (1, 1.0)


def test_numbers_and_label_sets(client: TestClient, publish: Publish, database: Database) -> None:
    publish()
    random = Random(0)
    truth, answers = [], []
    for _ in range(30):
        true = [name for name in "abc" if random.random() < 0.5]
        answer = true if random.random() < 0.7 else [*true, "d"]
        truth.append(true)
        answers.append(answer)
        add_feedback(
            database,
            task="multi_label",
            label=encode_label_set(true),
            answer=encode_label_set(answer),
        )
    (found,) = live_accuracy(client)
    right = sum(a == b for a, b in zip(truth, answers, strict=True))
    assert found["estimate"] == IsPartialDict(metric="accuracy", value=right / 30, texts=30)
    (f1,) = found["further"]
    binarizer = MultiLabelBinarizer(classes=list("abcd"))
    expected = f1_score(
        binarizer.fit_transform(truth), binarizer.transform(answers), average="macro"
    )
    assert (f1["metric"], f1["value"]) == ("macro_f1", pytest.approx(expected))
    assert f1["low"] < f1["value"] < f1["high"]

    errors = [random.gauss(0, 2) for _ in range(200)]
    for error in errors:
        add_feedback(
            database, number=2, task="regression", label=repr(3.0), answer=repr(3.0 + error)
        )
    estimate = live_accuracy(client)[0]["estimate"]
    rmse = math.sqrt(np.mean(np.square(errors)))
    assert (estimate["metric"], estimate["value"]) == ("rmse", pytest.approx(rmse))
    half = 1.96 * rmse / math.sqrt(2 * 200)  # of a standard deviation, for normal errors
    assert (estimate["low"], estimate["high"]) == pytest.approx((rmse - half, rmse + half), abs=0.1)


def test_the_time_is_linear_in_the_feedback(database: Database) -> None:
    def add(count: int) -> None:
        rows = [
            {
                "model": "sentiment",
                "number": 1,
                "target": "",
                "author": "local",
                "subject": f"{i}-0",
                "key_id": LOCAL_KEY_ID,
                "task": "single_label",
                "text_hash": "0",
                "label": "good",
            }
            for i in (new_id().hex for _ in range(count))
        ]
        with database.write() as session:
            session.execute(insert(Feedback), rows)

    def seconds() -> float:
        start = time.process_time()
        with database.read() as session:
            feedback_repository.list_newest_per_target_and_subject(
                session, model="sentiment", with_texts=False
            )
        return time.process_time() - start

    add(500)
    few = max(seconds(), seconds())
    add(3500)
    assert min(seconds(), seconds()) < 30 * few


def test_a_prediction_that_expires_while_it_is_drawn(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    publish()
    expiring, staying = add_prediction(database), add_prediction(database)
    deleted = Event()

    def expire() -> None:
        with database.write() as session:
            session.execute(delete(KeptPrediction).where(KeptPrediction.prediction_id == expiring))
            deleted.set()
            time.sleep(0.5)  # the draw is waiting

    with ThreadPoolExecutor(1) as pool:
        expired = pool.submit(expire)
        assert deleted.wait(20)
        found = review(keeping)
        expired.result(20)
    assert [each["prediction_id"] for each in found["data"]] == [f"{staying.hex}-0"]


@on_both_databases
def test_a_draw_delays_no_writer_and_draws_nothing_twice(
    keeping: TestClient, publish: Publish, database: Database
) -> None:
    """While the keys are drawn, another review draws some of them and gets their labels."""
    publish()
    ids = {f"{add_prediction(database).hex}-0" for _ in range(8)}
    labeled: list[str] = []

    def review_concurrently(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "random()" in statement and not labeled:
            labeled.append("")
            found = review(keeping, 3)
            assert found["drawn"] == 3
            labeled[:] = [each["prediction_id"] for each in found["data"]]
            for each in labeled:
                send(keeping, prediction_id=each, label="good")

    event.listen(Engine, "after_cursor_execute", review_concurrently)
    try:
        found = review(keeping, 8)
    finally:
        event.remove(Engine, "after_cursor_execute", review_concurrently)
    assert (len(labeled), found["drawn"], found["already_labeled"]) == (3, 5, 0)
    assert {each["prediction_id"] for each in found["data"]} == ids - set(labeled)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_draw_reads_an_index_only(database: Database) -> None:
    """The rows have the texts: of millions they are gigabytes."""
    plan: list[str] = []

    def explain(connection: Connection, _: Any, statement: str, given: Any, *__: Any) -> None:
        if "random()" in statement and not statement.startswith("EXPLAIN"):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
            plan.extend(row[3] for row in rows)

    event.listen(database.read_engine, "before_cursor_execute", explain)
    with database.read() as session:
        traffic.draw_review_sample(session, model="sentiment", number=1, count=5)
    index = "SEARCH kept_predictions USING COVERING INDEX ix_kept_predictions_version"
    assert plan[0].startswith(index)


def test_a_draw_between_two_steps_of_feedback_is_noticed(
    keeping: TestClient, publish: Publish, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is drawn after its prediction was found and before the feedback is stored."""
    publish()
    prediction_id = predict(keeping)
    build = feedback_service._build_row

    def draw_first(*arguments: Any, **more: Any) -> None:
        review(keeping, 1)
        build(*arguments, **more)

    monkeypatch.setattr(feedback_service, "_build_row", draw_first)
    send(keeping, prediction_id=prediction_id, label="bad")
    assert [row.sampled for row in all_feedback(database)] == [True]
    assert listed(keeping, sampled="false") == []
    assert len(listed(keeping, sampled="true")) == 1
