"""From feedback to a promoted version, or to one in shadow that says why."""

import json

import pytest
from sqlalchemy import delete, update

from app.feedback.tables import Feedback
from app.privacy.text_hashes import TextHasher
from app.queue.enums import JobKind
from app.queue.tables import Job
from app.retraining import scheduler
from tests.app.retraining.conftest import LABELS, MODEL, NEW_WORDS, Retraining, make_texts
from tests.webhook_rows import create_webhook, deliveries


def test_better_version_is_promoted(mood: Retraining) -> None:
    mood.add_sampled(make_texts(NEW_WORDS, 160, seed=1))
    mood.set_rule(new_labels=100)
    run = mood.run_to_end()
    assert run["state"] == "promoted", run
    assert mood.aliases() == {"production": 2}
    assert (run["trigger"], run["new_labels"]) == ("new_labels", 160)
    live, data = run["result"]["live"], run["data"]
    assert data["evaluated_live"] + data["live_sampled"] == 160
    assert live["texts"] == data["evaluated_live"] > 50
    assert live["new"]["value"] > 0.95
    assert live["current"]["value"] < 0.75
    assert run["result"]["all"]["texts"] == live["texts"] + run["result"]["test"]["texts"]
    assert run["summary"].startswith("Version 2 went into production: it is better than version 1")


def test_version_that_is_no_better_goes_to_shadow(mood: Retraining) -> None:
    mood.add_sampled(make_texts(LABELS, 160, seed=1))
    mood.set_rule(new_labels=100)
    run = mood.run_to_end()
    assert run["state"] == "shadowed", run
    assert run["reasons"] == ["not_better"]
    assert mood.aliases() == {"production": 1, "shadow": 2}
    assert "Version 2 was not promoted, and has the alias shadow" in run["summary"]


def test_versions_are_never_evaluated_on_volunteered_corrections(mood: Retraining) -> None:
    """Any other model looks better on texts that were reported because production is wrong."""
    corrections = make_texts(NEW_WORDS, 200, seed=1)
    mood.volunteer(corrections)
    mood.set_rule(new_labels=100)
    run = mood.run_to_end()
    assert (run["state"], run["reasons"]) == ("shadowed", ["not_better"])
    assert run["data"]["live_volunteered"] == 200
    assert run["data"]["evaluated_live"] == 0
    assert run["result"]["live"] is None


def test_worse_version_goes_to_shadow_though_it_leads_on_all_texts(mood: Retraining) -> None:
    """Live texts call good what the data call bad: the gain there hides the loss on test texts."""
    reversed_words = {"fine": "bad", "awful": "good"}
    mood.add_sampled(make_texts(reversed_words, 600, seed=1))
    mood.set_rule(new_labels=100)
    run = mood.run_to_end()
    assert run["state"] == "shadowed", run
    assert run["reasons"] == ["worse_on_test"]
    assert run["result"]["all"]["p_better"] < 0.05
    assert "it is worse on the test split of the data" in run["summary"]


def test_too_few_texts_never_promote(empty: Retraining) -> None:
    empty.start_with(make_texts(LABELS, 60))
    empty.add_sampled(make_texts(NEW_WORDS, 40, seed=1))
    empty.set_rule()
    run = empty.run_to_end()
    assert (run["state"], run["reasons"]) == ("shadowed", ["too_few_texts"])
    assert run["result"]["all"]["texts"] < 50
    assert run["result"]["tries"] == 0  # no test decided
    rule = empty.client.get(f"/v1/models/{MODEL}/retraining").json()
    assert rule["tries"] == 0


def test_production_that_moved_meanwhile_stays(mood: Retraining) -> None:
    mood.add_sampled(make_texts(NEW_WORDS, 160, seed=1))
    mood.set_rule()
    job = mood.train(data={"source": "moods:1"})
    assert mood.advance(2)["state"] == "evaluating"
    number = int(job["model_version"].rpartition(":")[2])
    mood.promote(number)
    run = mood.run_to_end()
    assert (run["state"], run["reasons"]) == ("shadowed", ["production_changed"])
    assert mood.aliases() == {"production": number, "shadow": 3}
    assert "version 1 is not in production any more" in run["summary"]


def test_version_that_is_promoted_while_it_is_evaluated_stays(mood: Retraining) -> None:
    mood.add_sampled(make_texts(LABELS, 160, seed=1))
    mood.set_rule(new_labels=100)
    assert mood.advance(2)["state"] == "evaluating"
    mood.promote(2)
    run = mood.run_to_end()
    assert (run["state"], run["reasons"]) == ("promoted", ["not_better"])
    assert mood.aliases() == {"production": 2}
    assert run["summary"].startswith(
        "Version 2 was promoted by somebody. It would be in shadow: it"
    )


def test_production_that_moves_before_training_stops_the_run(mood: Retraining) -> None:
    mood.add_sampled(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule(enabled=False)
    mood.train(data={"source": "moods:1"})
    mood.client.post(f"/v1/models/{MODEL}/retraining/runs")
    mood.promote(2)
    run = mood.advance()
    assert (run["state"], run["reasons"]) == ("skipped", ["production_changed"])


def test_next_run_builds_on_the_promoted_version(mood: Retraining) -> None:
    sampled = make_texts(NEW_WORDS, 160, seed=1)
    mood.add_sampled(sampled)
    mood.set_rule(new_labels=100)
    first = mood.run_to_end()
    assert first["state"] == "promoted"
    more = make_texts({"splendid": "good", "grim": "bad"}, 160, seed=3)
    mood.add_sampled(more)
    second = mood.run_to_end()
    assert second["state"] == "promoted", second
    assert second["data"]["train"] == first["data"]["train"]  # live texts are not data
    assert second["data"]["evaluated_live"] > first["data"]["evaluated_live"]
    trained = first["data"]["live_sampled"] + second["data"]["evaluated_live"]
    assert trained <= 320
    assert second["data"]["live_sampled"] + second["data"]["evaluated_live"] == 320
    assert second["result"]["tries"] == 2
    assert mood.aliases()["production"] == 3
    back = mood.client.post(f"/v1/models/{MODEL}/aliases/production/rollback")
    assert back.json()["aliases"]["production"] == 2


def test_live_rows_of_corrected_data_are_not_kept(mood: Retraining) -> None:
    """A run's dataset is corrected, and a job of its own makes a version of the correction."""
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    first = mood.run_to_end()
    made = f"/v1/datasets/{MODEL}-retraining"
    (row,) = mood.client.get(f"{made}:1/rows", params={"limit": 1}).json()["data"]
    label = {"good": "bad", "bad": "good"}[row["label"]]
    change = {"changes": [{"row": row["row"], "label": label}]}
    assert mood.client.post(f"{made}:1/corrections", json=change).status_code == 201
    mood.train(data={"source": f"{MODEL}-retraining:2", "split_column": "split"})
    mood.promote(3)
    model = f"/v1/models/{MODEL}"
    assert mood.client.delete(f"{model}/aliases/shadow").status_code == 204
    assert mood.client.delete(f"{model}/versions/2").status_code == 204
    with mood.resources.database.write() as session:
        session.execute(delete(Feedback))
    scheduler.start_and_advance_runs(mood.resources)  # which deletes the data of deleted versions
    mood.volunteer(make_texts(NEW_WORDS, 12, seed=4))
    second = mood.advance()
    assert second["data"]["train"] == first["data"]["train"] == 210
    assert second["data"]["live_volunteered"] == 12
    (row,) = mood.client.get(f"{made}:3/rows", params={"limit": 1}).json()["data"]
    assert row["label"] == label


def test_nothing_is_trained_without_new_texts(mood: Retraining) -> None:
    texts = make_texts(LABELS, 300)
    job = mood.client.get("/v1/jobs").json()["data"][0]
    mood.volunteer(texts)  # the right labels of all rows, as the data have them
    mood.set_rule()
    run = mood.advance()
    assert (run["state"], run["reasons"]) == ("skipped", ["nothing_new"])
    assert run["data"]["left_out"] == {"in_evaluation_split": 90}
    assert (run["data"]["replaced"], run["data"]["live_volunteered"]) == (210, 210)
    assert [each["id"] for each in mood.client.get("/v1/jobs").json()["data"]] == [job["id"]]


def test_failed_job_ends_the_run_until_the_next_trigger(mood: Retraining) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    run = mood.run_to_end(failing="too_few_rows")
    assert (run["state"], run["error"]["code"]) == ("failed", "too_few_rows")
    assert run["summary"] == "It failed: It is a test."
    assert len(mood.runs()) == 1
    mood.advance(2)
    assert len(mood.runs()) == 1
    assert mood.client.get(f"/v1/models/{MODEL}/retraining").json()["waiting_labels"] == 0
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=2))
    assert mood.run_to_end()["state"] == "shadowed"
    assert len(mood.runs()) == 2


def test_cancelled_job_cancels_the_run(mood: Retraining) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    scheduler.start_and_advance_runs(mood.resources)
    mood.client.post(f"/v1/jobs/{mood.runs()[0]['job_id']}/cancel")
    assert mood.advance()["state"] == "cancelled"
    assert mood.aliases() == {"production": 1}


def test_evaluation_that_was_deleted_fails_the_run(mood: Retraining) -> None:
    mood.add_sampled(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    run = mood.advance(2)
    assert run["state"] == "evaluating"
    deleted = run["new_run_id"]
    assert mood.client.delete(f"/v1/predictions/{deleted}").status_code == 204
    run = mood.advance()
    assert (run["state"], run["error"]["code"]) == ("failed", "retraining_evaluation_deleted")
    assert deleted in run["error"]["message"]


def test_cancel(mood: Retraining) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    scheduler.start_and_advance_runs(mood.resources)
    run = mood.runs()[0]
    path = f"/v1/models/{MODEL}/retraining/runs/{run['id']}/cancel"
    assert mood.client.post(path).json()["state"] == "cancelled"
    assert mood.client.get(f"/v1/jobs/{run['job_id']}").json()["state"] == "cancelled"
    refused = mood.client.post(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "retraining_finished")
    scheduler.start_and_advance_runs(mood.resources)
    names = [each["name"] for each in mood.client.get("/v1/datasets").json()["data"]]
    assert names == ["moods"]  # no version was made of the others


def test_evaluation_texts_are_deleted_with_the_results(mood: Retraining) -> None:
    """Until then, forgetting a text finds the results by the dataset."""
    mood.add_sampled(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    mood.run_to_end()
    scheduler.start_and_advance_runs(mood.resources)
    names = [each["name"] for each in mood.client.get("/v1/datasets").json()["data"]]
    assert names == [f"{MODEL}-evaluation", f"{MODEL}-retraining", "moods"]
    with mood.resources.database.write() as session:
        session.execute(update(Job).where(Job.kind == JobKind.PREDICTION).values(artifact_id=None))
    scheduler.start_and_advance_runs(mood.resources)
    names = [each["name"] for each in mood.client.get("/v1/datasets").json()["data"]]
    assert names == [f"{MODEL}-retraining", "moods"]
    (training,) = [
        each
        for each in mood.client.get("/v1/datasets").json()["data"]
        if each["name"] == f"{MODEL}-retraining"
    ]
    assert training["title"] == f"moods:1, with feedback on {MODEL}"


def test_forgotten_texts_are_not_in_the_next_union(mood: Retraining) -> None:
    live = make_texts(NEW_WORDS, 30, seed=1)
    mood.volunteer(live)
    row = make_texts(LABELS, 300)[0][0]
    for text in (row, live[0][0]):
        assert mood.client.post("/v1/forget", json={"text": text}).status_code == 200
    mood.set_rule()
    run = mood.run_to_end()
    data = run["data"]
    assert data["live_volunteered"] == 29
    assert data["forgotten_rows"] == 1
    assert data["train"] + data["validation"] + data["test"] == 299
    for text in (row, live[0][0]):
        found = mood.client.post("/v1/forget", json={"text": text}).json()["datasets"]
        assert f"{MODEL}-retraining" not in {each["ref"].partition(":")[0] for each in found}


def test_worker_with_another_pepper_keeps_nothing_forgotten(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 30, seed=1))
    mood.client.post("/v1/forget", json={"text": "anything"})
    mood.set_rule()
    monkeypatch.setattr(
        TextHasher, "from_settings", classmethod(lambda cls, _: cls(b"another pepper"))
    )
    run = mood.advance()
    assert (run["state"], run["error"]["code"]) == ("failed", "retraining_pepper_differs")


def test_authors_who_disagree_are_left_out(mood: Retraining) -> None:
    texts = make_texts(NEW_WORDS, 30, seed=1)
    mood.volunteer(texts)
    first = texts[0][0]
    item = {"text": first, "model": MODEL, "by": "ada"}
    labels = {"good": "bad", "bad": "good"}
    mood.client.post("/v1/feedback", json={**item, "label": labels[texts[0][1]]})
    mood.set_rule()
    run = mood.advance()
    assert run["data"]["left_out"] == {"disagreement": 1}
    assert run["data"]["live_volunteered"] == 29


def test_event_tells_the_end(mood: Retraining) -> None:
    create_webhook(mood.resources, "http://127.0.0.1:9/", events=["retraining.finished"])
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    run = mood.run_to_end()
    (delivery,) = deliveries(mood.resources.database)
    assert json.loads(delivery.body)["data"] == {
        "id": run["id"],
        "model": MODEL,
        "state": "shadowed",
        "version": f"{MODEL}:2",
        "compared_with": f"{MODEL}:1",
        "reasons": ["not_better"],
        "error": None,
    }
