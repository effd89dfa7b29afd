"""Every task is retrained: several labels, numbers, ranks, pairs, several targets; and a search."""

import json
import random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.queue.tables import Job
from app.retraining import scheduler, service
from app.retraining.collect_training_texts import training_spec
from app.retraining.production_version import read_production_version
from app.sweeps import service as sweep_service
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep
from lora_core.specs.method import AutoSpec
from lora_core.specs.train import RuntimeSpec
from tests.app.retraining.conftest import LABELS, MODEL, NEW_WORDS, Retraining, make_texts
from tests.in_process_jobs import run_jobs

WORDS = {**LABELS, **NEW_WORDS}


def as_row(text: str, label: str, task: str) -> dict[str, Any]:
    """A row of a dataset, and the same as feedback has it in `label`."""
    good = label == "good"
    match task:
        case "multi_label":
            return {"text": text, "label": ["good", "any"] if good else ["any"]}
        case "regression":
            return {"text": text, "label": (1.0 if good else -1.0) + len(text) / 1000}
        case "several_targets":
            return {"text": text, "mood": label, "score": 1.0 if good else -1.0}
        case "pairs":
            return {"text": text, "text_pair": f"about {text}", "label": label}
        case _:
            return {"text": text, "label": label}


def encoded(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps(sorted(value))
    return value if isinstance(value, str) else repr(value)


@pytest.mark.parametrize(
    ("task", "fields", "metric"),
    [
        pytest.param("multi_label", {"task": "multi_label"}, "macro_f1", marks=pytest.mark.slow),
        pytest.param("regression", {"task": "regression"}, "rmse", marks=pytest.mark.slow),
        pytest.param("ordered", {"ordered": "true"}, "accuracy", marks=pytest.mark.slow),
        pytest.param(
            "pairs", {"text_pair_column": "text_pair"}, "accuracy", marks=pytest.mark.slow
        ),
        ("several_targets", {"targets": "mood,score=regression"}, "skill"),
    ],
)
def test_tasks(empty: Retraining, task: str, fields: dict[str, str], metric: str) -> None:
    rows = [as_row(*each, task) for each in make_texts(LABELS, 240)]
    ref = empty.upload([json.dumps(each) for each in rows], **fields)
    empty.train(data={"source": ref})
    empty.promote(1)
    for text, label in make_texts(NEW_WORDS, 160, seed=1):
        line = as_row(text, label, task)
        common = {"text_pair": line.get("text_pair")}
        if task == "several_targets":
            empty.add_sampled([(text, line["mood"])], target="mood")
            score = encoded(line["score"])
            empty.add_sampled([(text, score)], target="score", task="regression")
        else:
            stored = task if task in ("multi_label", "regression") else "single_label"
            empty.add_sampled([(text, encoded(line["label"]))], task=stored, **common)
    empty.set_rule()
    run = empty.run_to_end()
    assert run["state"] == "promoted", run
    assert run["result"]["metric"] == metric
    assert run["result"]["live"]["difference"] > 0
    job = empty.client.get(f"/v1/jobs/{run['job_id']}").json()
    before = empty.client.get("/v1/jobs").json()["data"][-1]["id"]
    specs = [job["spec"], empty.client.get(f"/v1/jobs/{before}").json()["spec"]]
    assert specs[0]["task"]["type"] == specs[1]["task"]["type"]
    assert specs[0]["task"].get("ordered") == specs[1]["task"].get("ordered")


def test_search_makes_the_version_of_the_best_trial(mood: Retraining) -> None:
    mood.add_sampled(make_texts(NEW_WORDS, 160, seed=1))
    mood.set_rule(search={"space": {"method.C": [0.01, 10.0]}})
    run = mood.advance()
    assert run["state"] == "searching"
    run = mood.run_to_end()
    assert run["state"] == "promoted", run
    sweep = mood.client.get(f"/v1/sweeps/{run['sweep_id']}").json()
    assert (sweep["state"], sweep["name"]) == ("finished", f"{MODEL}: retraining")
    assert mood.aliases() == {"production": 2}
    assert len(mood.client.get("/v1/sweeps").json()["data"]) == 1


def test_production_that_moves_before_a_search_stops_the_run(mood: Retraining) -> None:
    mood.train(data={"source": "moods:1"})
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule(search={"space": {"method.C": [0.01, 10.0]}})
    assert mood.advance()["state"] == "searching"
    mood.promote(2)
    run = mood.advance()
    assert (run["state"], run["reasons"]) == ("skipped", ["production_changed"])
    assert mood.client.get("/v1/sweeps").json()["data"] == []


def test_search_without_a_winner_fails(mood: Retraining) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule(search={"space": {"method.C": [0.01, 10.0]}})
    run = mood.run_to_end(failing="non_finite")
    assert (run["state"], run["error"]["code"]) == ("failed", "retraining_no_winner")


def test_cancel_stops_a_search(mood: Retraining) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule(search={"space": {"method.C": [0.01, 10.0]}})
    for _ in range(2):
        scheduler.start_and_advance_runs(mood.resources)
    run = mood.runs()[0]
    path = f"/v1/models/{MODEL}/retraining/runs/{run['id']}/cancel"
    assert mood.client.post(path).json()["state"] == "cancelled"
    assert mood.client.get(f"/v1/sweeps/{run['sweep_id']}").json()["state"] == "stopped"
    assert run_jobs(mood.resources, mood.directory) == 0


def test_cancel_while_its_search_ends(mood: Retraining, monkeypatch: pytest.MonkeyPatch) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule(search={"space": {"method.C": [0.01, 10.0]}})
    for _ in range(2):
        scheduler.start_and_advance_runs(mood.resources)
    run = mood.runs()[0]

    def stop_ended(session: Session, *, sweep_id: UUID) -> None:
        session.get_one(Sweep, sweep_id).state = SweepState.FINISHED
        session.flush()
        sweep_service.stop_sweep(session, sweep_id=sweep_id)

    monkeypatch.setattr(service, "sweep_service", SimpleNamespace(stop_sweep=stop_ended))
    path = f"/v1/models/{MODEL}/retraining/runs/{run['id']}/cancel"
    assert mood.client.post(path).json()["state"] == "cancelled"
    assert mood.client.get(f"/v1/sweeps/{run['sweep_id']}").json()["state"] == "finished"


def test_bad_search(mood: Retraining) -> None:
    for space in ({"method.unknown": [1, 2]}, {"method.C": [-1.0]}):
        body = {"new_labels": 5, "search": {"space": space}}
        response = mood.client.put(f"/v1/models/{MODEL}/retraining", json=body)
        assert response.status_code == 422, response.text


def test_packaged_sample(empty: Retraining) -> None:
    """Its rows come from a package, not from a dataset, and its training part was a sample."""
    empty.train(data={"train_size": 100, "validation_size": 50, "test_size": 100})
    empty.promote(1)
    rng = random.Random(0)
    texts = [(f"{text} {rng.random()}", "positive") for text, _ in make_texts(NEW_WORDS, 30)]
    empty.volunteer(texts)
    empty.set_rule()
    run = empty.run_to_end()
    assert run["state"] in ("promoted", "shadowed"), run
    data = run["data"]
    assert (data["source"], data["train"], data["test"]) == ("rotten-tomatoes", 100, 100)
    assert run["result"]["test"]["texts"] == 100


def test_examples_in_chat_form(empty: Retraining) -> None:
    """Models that were made over the APIs of OpenAI and Mistral keep how they read prompts."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Which mood is it?"},
                {"role": "user", "content": text},
                {"role": "assistant", "content": label},
            ]
        }
        for text, label in make_texts(LABELS, 240)
    ]
    ref = empty.upload([json.dumps(each) for each in rows])
    first = empty.train(data={"source": ref})
    empty.promote(1)
    empty.add_sampled(make_texts(NEW_WORDS, 160, seed=1))
    empty.set_rule()
    run = empty.run_to_end()
    assert run["state"] == "promoted", run
    second = empty.client.get(f"/v1/jobs/{run['job_id']}").json()
    formats = [each["spec"]["data"]["prompt_format"] for each in (first, second)]
    assert formats[0] == formats[1] is not None


def test_data_in_one_dataset_per_split(empty: Retraining) -> None:
    texts = make_texts(LABELS, 240)
    sources = {
        split: empty.upload(
            ["text,label", *(f"{text},{label}" for text, label in part)],
            suffix="csv",
            name=split,
        )
        for split, part in (("train", texts[:160]), ("validation", texts[160:190]))
    }
    sources["test"] = empty.upload(
        ["text,label", *(f"{text},{label}" for text, label in texts[190:])], suffix="csv", name="t"
    )
    empty.train(data={"source": sources})
    empty.promote(1)
    empty.add_sampled(make_texts(NEW_WORDS, 160, seed=1))
    empty.set_rule()
    run = empty.run_to_end()
    assert run["state"] == "promoted", run
    data = run["data"]
    assert data["source"] == "train:1, validation:1, t:1"
    assert (data["train"], data["validation"], data["test"]) == (160, 30, 50)


def test_settings_of_production_are_kept(mood: Retraining) -> None:
    """The candidates of `auto` follow from the data, and the threads from the worker."""
    auto = {"type": "auto", "time_budget": 60, "candidates": [{"method": {"type": "linear"}}]}
    changed = {
        "base": "minilm-l6",
        "method": auto,
        "runtime": {"seed": 7, "threads": 4},
        "result": {"model": False, "train_metrics": True},
    }
    with mood.resources.database.write() as session:
        job = session.scalars(select(Job)).one()
        assert job.device_class == "cpu"  # of the worker that ran it
        data = {**job.spec["data"], "max_length": 32, "test_size": 50}
        job.spec = {**job.spec, **changed, "data": data}
    with mood.resources.database.read() as session:
        version = read_production_version(session, MODEL)
    made = training_spec(version, "new:2")
    assert made.method == AutoSpec(time_budget=60)
    assert (made.base, made.data.max_length) == ("minilm-l6", 32)
    assert made.runtime == RuntimeSpec(seed=7)
    assert (made.result.model, made.result.train_metrics) == (True, True)
    assert (made.data.source, made.data.split_column) == ("new:2", "split")
