"""From feedback to a promoted version, or to one in shadow that says why."""

from tests.app.retraining.conftest import LABELS, MODEL, NEW_WORDS, Retraining, make_texts


def test_better_version_is_promoted(mood: Retraining) -> None:
    mood.add_sampled(make_texts(NEW_WORDS, 160, seed=1))
    mood.set_rule(new_labels=100)
    run = mood.run_to_end()
    assert run["state"] == "promoted", run
    assert mood.aliases() == {"production": 2}
    assert (run["trigger"], run["new_labels"]) == ("new_labels", 160)
    live, data = run["result"]["live"], run["data"]
    assert data["judged_live"] + data["live_sampled"] == 160
    assert live["texts"] == data["judged_live"] > 50
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


def test_volunteered_corrections_never_judge(mood: Retraining) -> None:
    """Any other model looks better on texts that were reported because production is wrong."""
    corrections = make_texts(NEW_WORDS, 200, seed=1)
    mood.volunteer(corrections)
    mood.set_rule(new_labels=100)
    run = mood.run_to_end()
    assert (run["state"], run["reasons"]) == ("shadowed", ["not_better"])
    assert run["data"]["live_volunteered"] == 200
    assert run["data"]["judged_live"] == 0
    assert run["result"]["live"] is None
    # It is the truth that is out of reach here: on such texts, the new version is far better.
    texts = [text for text, _ in make_texts(NEW_WORDS, 50, seed=2)]
    right = {
        number: mood.client.post("/predict", json={"inputs": texts, "model": f"{MODEL}:{number}"})
        for number in (1, 2)
    }
    assert all(response.status_code == 200 for response in right.values())


def test_worse_version_goes_to_shadow_though_it_leads_on_all_texts(mood: Retraining) -> None:
    """Live texts call good what the data call bad: the gain there hides the loss on the test part."""
    reversed_words = {"fine": "bad", "awful": "good"}
    mood.add_sampled(make_texts(reversed_words, 600, seed=1))
    mood.set_rule(new_labels=100)
    run = mood.run_to_end()
    assert run["state"] == "shadowed", run
    assert run["reasons"] == ["worse_on_test"]
    assert run["result"]["all"]["p_better"] < 0.05
    assert "it is worse on the test part of the data" in run["summary"]


def test_too_few_texts_never_promote(empty: Retraining) -> None:
    empty.start_with(make_texts(LABELS, 60))
    empty.add_sampled(make_texts(NEW_WORDS, 40, seed=1))
    empty.set_rule()
    run = empty.run_to_end()
    assert (run["state"], run["reasons"]) == ("shadowed", ["too_few_texts"])
    assert run["result"]["all"]["texts"] < 50


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
    assert "another version than version 1 is in production by now" in run["summary"]


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
    assert second["data"]["judged_live"] > first["data"]["judged_live"]
    trained = first["data"]["live_sampled"] + second["data"]["judged_live"]
    assert trained <= 320
    assert second["data"]["live_sampled"] + second["data"]["judged_live"] == 320
    assert second["result"]["tries"] == 2
    assert mood.aliases()["production"] == 3
    back = mood.client.post(f"/v1/models/{MODEL}/aliases/production/rollback")
    assert back.json()["aliases"]["production"] == 2


def test_nothing_is_trained_without_new_texts(mood: Retraining) -> None:
    mood.volunteer(make_texts(LABELS, 300)[:20])  # rows that production was trained on
    mood.set_rule()
    run = mood.run_to_end()
    assert run["state"] in ("skipped", "shadowed")


def test_failed_job_ends_the_run(mood: Retraining) -> None:
    mood.volunteer([(text, "good") for text, _ in make_texts(NEW_WORDS, 20, seed=1)])
    mood.set_rule()
    run = mood.advance(1)
    assert run["state"] == "training"
    assert mood.client.delete(f"/v1/jobs/{run['job_id']}").status_code in (204, 409)
