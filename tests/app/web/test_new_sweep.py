"""The sweep forms: parsing, planning, and equality of form, API and command line."""

import json
import re
import shlex
from html import unescape
from typing import Any, get_args

import pytest
from starlette.testclient import TestClient

from app.cli.spec_options import SPEC_OPTIONS, option_spellings
from app.cli.sweep_start import STRATEGY_OPTIONS, SWEEP_OPTIONS, Strategy, resolve_field
from app.sweeps.schemas import SweepCreate
from app.sweeps.search_space import ALL_ROLES, PRESETS
from app.web import sweep_form
from tests.app.sweeps.conftest import JOB, SPACE

GRID = {"strategy.type": "grid", "space.method.r": "2,4", "job.data.train_size": "100"}


def ask(client: TestClient, path: str = "/sweeps/new", **typed: str) -> str:
    answer = client.get(path, params=typed)
    assert answer.status_code == 200, answer.text
    return answer.text


def body(page: str) -> dict[str, Any]:
    """Return the request body of the button."""
    found = re.search(r'id="submit"[^>]*? data-body="([^"]*)"', page)
    assert found
    read: dict[str, Any] = json.loads(unescape(found[1]))
    return read


def can_start(page: str) -> bool:
    found = re.search(r'<button[^>]*id="submit"[^>]*>', page)
    assert found
    return " disabled" not in found[0]


def field_errors(page: str) -> dict[str, str]:
    """Return the errors by field id."""
    errors = re.findall(r'<p class="error" id="([\w-]+)-error">(.*?)</p>', page)
    return {name: unescape(text) for name, text in errors}


def plan(page: str) -> str:
    shown = page.partition('id="plan"')[2].partition("</dl>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", shown.partition(">")[2]).split())


def command(page: str) -> list[str]:
    text = unescape(page.partition('id="command"')[2].partition(">")[2].partition("</pre>")[0])
    return shlex.split(text.replace("\\\n", ""))


def test_empty_form_shows_an_example_that_can_be_started(client: TestClient) -> None:
    page = ask(client)
    assert can_start(page)
    assert plan(page).startswith(
        "Trials 9 Trainable parameters 231,554 to 480,386 Estimated time about "
    )
    assert "no worker is running" in plan(page)
    started = client.post("/v1/sweeps", json=body(page))
    assert started.status_code == 202
    assert started.json()["trial_count"] == 9


def test_form_values_become_the_request_body(client: TestClient) -> None:
    page = ask(
        client,
        **{
            "job.data.source": "imdb",
            "job.data.train_size": "0.5",
            "job.optim.epochs": "3",
            "job.result.train_metrics": "true",
            "space.method.targets": "query+value, all",
            "space.optim.learning_rate": "log:1e-4..1e-2x3",
            "more": "method.dropout=0.0..0.3\n\n method.head = train,lora ",
            "strategy.type": "random",
            "strategy.trials": "7",
            "strategy.eta": "4",  # of another strategy
            "name": "123",
            "objective": "macro_f1",
            "max_parallel_jobs": "",
        },
    )
    assert body(page) == {
        "job": {
            "method": {"type": "lora"},
            "data": {"source": "imdb", "train_size": 0.5},
            "optim": {"epochs": 3},
            "result": {"train_metrics": True},
        },
        "space": {
            "method.targets": [["query", "value"], ALL_ROLES],
            "optim.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "count": 3},
            "method.dropout": {"low": 0.0, "high": 0.3},
            "method.head": ["train", "lora"],
        },
        "strategy": {"type": "random", "trials": 7},
        "name": "123",
        "objective": "macro_f1",
    }
    assert "Trials 7" in plan(page)


@pytest.mark.parametrize(
    ("typed", "where", "expected"),
    [
        ({"space.method.r": "2,,4"}, "space-method-r", "a value is empty"),
        ({"space.method.alpha": "8.."}, "space-method-alpha", "a range is LOW..HIGH"),
        ({"space.method.alpha": "9..3"}, "space-method-alpha", "`low` must be less than `high`"),
        ({"space.method.r": "log:1..64"}, "space-method-r", "Set `count`"),
        ({"space.method.r": "2,2"}, "", "method.r lists the same value twice"),
        ({"space.method.r": "2,x"}, "space-method-r", "must be an integer"),
        ({"space.method.r": "2,5000"}, "space-method-r", "must be at most 4,096"),
        ({"more": "method.headd=1,2"}, "more", "did you mean head?"),
        ({"more": "head"}, "more", "a line is FIELD=VALUES"),
        ({"more": "method.r=8"}, "more", "method.r is given twice"),
        ({"job.optim.epochs": "two"}, "job-optim-epochs", "must be an integer, not a string"),
        ({"job.data.source": "nothing"}, "job-data-source", "nothing"),
        ({"strategy.type": "tpe"}, "strategy-trials", "is required"),
        ({"strategy.type": "random", "strategy.trials": "99"}, "strategy-trials", "only 2"),
        ({"strategy.type": "halving", "strategy.eta": "1"}, "strategy-eta", "at least 2"),
        ({"job.base": "nothing"}, "job-base", "No base model"),
        ({"space.method.r": ""}, "", "No field varies"),
        ({"strategy.type": "lucky"}, "", "must be one of"),
        ({"space.runtime.seed": "0..9000"}, "", "18,002 trials"),
    ],
)  # fmt: skip
def test_errors_are_shown_at_their_field(
    client: TestClient, typed: dict[str, str], where: str, expected: str
) -> None:
    page = ask(client, **{**GRID, **typed})
    assert not can_start(page)
    shown = field_errors(page)
    if where:
        assert expected in shown[where]
        field = re.search(rf'id="{where}"[^>]*', page)
        assert field
        assert 'aria-invalid="true"' in field[0]
        assert f"{where}-error" in field[0]
    else:
        general = page.partition('id="form-error"')[2].partition("</div>")[0]
        assert expected in unescape(general)


def test_errors_of_all_fields_are_shown_together(client: TestClient) -> None:
    page = ask(client, **{**GRID, "space.method.alpha": "8..", "job.optim.epochs": "two"})
    assert set(field_errors(page)) == {"space-method-alpha", "job-optim-epochs"}


def test_input_is_kept_and_escaped(client: TestClient) -> None:
    page = ask(client, **{**GRID, "space.method.alpha": '"><script>', "more": "</textarea><b>"})
    assert '"><script>' not in page
    assert "</textarea><b>" not in page
    assert 'value="&#34;&gt;&lt;script&gt;"' in page


@pytest.mark.parametrize("malformed", ["NaN", "1e999", "[[[[", "\x00", "9" * 5000, "{}"])
def test_malformed_values_are_rejected_with_a_message(client: TestClient, malformed: str) -> None:
    for place in ("space.optim.learning_rate", "job.optim.epochs", "job.data.source", "job.base"):
        page = ask(client, **{**GRID, place: malformed})
        assert not can_start(page), place
        assert field_errors(page) or "could never run" in page, place


def test_halving_plan_shows_its_rungs(client: TestClient) -> None:
    typed = {**GRID, "space.method.alpha": "4,8,16,32", "strategy.type": "halving"}
    page = ask(client, **{**typed, "strategy.min_full_runs": "1"})
    assert "Rungs 8 at 11% of the steps, 3 at 33% of the steps, 1 at 100% of the steps" in plan(
        page
    )


def test_options_exist_on_the_command_line() -> None:
    for place, option in sweep_form.OPTIONS.items():
        inside = place.removeprefix("job.")
        of_strategy = place.removeprefix("strategy.")
        if place == "strategy.type":
            flag = Strategy
        elif of_strategy != place:
            flag = STRATEGY_OPTIONS[of_strategy]
        else:
            flag = SWEEP_OPTIONS[place] if place in SWEEP_OPTIONS else SPEC_OPTIONS[inside]
        declared = flag if hasattr(flag, "__metadata__") else get_args(flag)[0]
        assert option in option_spellings(declared), place


def test_command_snippet_matches_the_request_body(client: TestClient) -> None:
    page = ask(
        client,
        **GRID,
        **{"space.optim.learning_rate": "1e-3, 1e-4", "name": "it's", "more": "method.head=lora"},
    )
    words = command(page)
    assert words[:3] == ["loraworks", "sweep", "start"]
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert options["--name"] == "it's"
    assert options["--train-size"] == "100"
    over = [words[at + 1] for at, word in enumerate(words) if word == "--over"]
    assert over == ["r=2,4", "learning-rate=1e-3, 1e-4", "method.head=lora"]
    named = [resolve_field(each.partition("=")[0]) for each in over]
    assert named == list(body(page)["space"])
    page = ask(client, **GRID, **{"job.result.train_metrics": "true"})
    assert "--file" in command(page)  # there is no option for it


def test_preset_fills_the_form(client: TestClient) -> None:
    answer = client.get("/sweeps/new?preset=seed-grid")
    assert "Trials 576" in plan(answer.text)
    wanted = SweepCreate.model_validate(PRESETS["seed-grid"])
    sent = SweepCreate.model_validate(body(answer.text))
    assert sent == wanted
    assert list(sent.space) == list(wanted.space)


def test_duplicated_sweep_sends_the_same_request(client: TestClient) -> None:
    made: dict[str, Any] = {
        "job": {
            **JOB,
            "optim": {"warmup": 0.5, "epochs": 4},
            "data": {"source": {"train": "imdb", "test": "imdb"}, "text_column": "text"},
        },
        "space": {**SPACE, "optim.learning_rate": {"low": 1e-4, "high": 0.01, "log": True}},
        "strategy": {"type": "halving", "trials": 5, "min_full_runs": 2},
        "objective": "loss",
        "name": "first, of many",
        "priority": 3,
    }
    sweep = client.post("/v1/sweeps", json=made)
    assert sweep.status_code == 202, sweep.text
    page = client.get(f"/sweeps/new?like={sweep.json()['id']}").text
    assert field_errors(page) == {}
    sent = body(page)
    # A constant setting without an input is sent as a field with one value.
    assert sent["space"].pop("method.targets") == [["query", "value"]]
    assert sent["space"].pop("optim.warmup") == [0.5]
    assert sent["space"].pop("data.text_column") == ["text"]
    assert sent["space"] == made["space"]
    assert sent["strategy"].items() >= {"type": "halving", "trials": 5, "min_full_runs": 2}.items()
    assert (sent["objective"], sent["name"], sent["priority"]) == ("loss", "first, of many", 3)
    assert sent["job"]["data"]["source"] == {"train": "imdb", "test": "imdb"}


def test_extension_shows_the_number_of_added_trials(client: TestClient) -> None:
    sweep_id = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE}).json()["id"]
    path = f"/sweeps/{sweep_id}/extend"
    page = ask(client, path)
    assert not can_start(page)
    assert "Current: 2, 4, 8" in page
    page = ask(client, path, **{"space.method.r": "8,16"})
    assert "Adds 4 trials to the existing 12." in page
    assert body(page) == {"space": {"method.r": [8, 16]}}
    assert command(page)[-2:] == ["--over", "r=8,16"]
    assert client.post(f"/v1{path}", json=body(page)).json()["trial_count"] == 16


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ({"space.method.r": "2"}, "the sweep has all of them"),
        ({"space.method.r": "2.."}, "a range is LOW..HIGH"),
        ({"space.method.r": "x"}, "could never run"),
        ({"trials": "5"}, "a grid is extended by values"),
        ({"trials": "many"}, "must be an integer"),
    ],
)
def test_invalid_extension_shows_an_error(
    client: TestClient, typed: dict[str, str], expected: str
) -> None:
    sweep_id = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE}).json()["id"]
    page = ask(client, f"/sweeps/{sweep_id}/extend", **typed)
    assert not can_start(page)
    assert expected in unescape(page)


def test_sampled_search_can_be_extended(client: TestClient) -> None:
    sent = {"job": JOB, "space": SPACE, "strategy": {"type": "random", "trials": 4}}
    sweep_id = client.post("/v1/sweeps", json=sent).json()["id"]
    page = ask(client, f"/sweeps/{sweep_id}/extend", trials="6")
    assert "Adds 2 trials to the existing 4." in page
    assert command(page)[-2:] == ["--trials", "6"]


def test_form_offers_every_strategy(client: TestClient) -> None:
    offered = re.findall(r'name="strategy.type" value="(\w+)"', ask(client))
    assert offered == list(sweep_form.STRATEGY_FIELDS)


def test_a_sweep_for_rare_labels(client: TestClient) -> None:
    fields = GRID | {
        "job.task.loss": "focal",
        "job.task.focal_gamma": "1.5",
        "job.task.tune_thresholds": "true",
        "job.task.class_weights": "balanced",
    }
    page = unescape(client.get("/sweeps/new", params=fields).text)
    assert "--loss focal" in page
    assert "--tune-thresholds \\" in page
    task = sweep_form.parse_sweep_form(fields).body["job"]["task"]
    assert task == {
        "loss": "focal", "focal_gamma": 1.5, "tune_thresholds": True, "class_weights": "balanced"
    }  # fmt: skip
    alone = unescape(client.get("/sweeps/new", params=GRID | {"job.task.focal_gamma": "1"}).text)
    assert "focal_gamma needs loss 'focal'" in alone


def test_a_sweep_of_another_task_is_ranked_by_its_metric(client: TestClient) -> None:
    fields = GRID | {"job.task.type": "regression"}
    page = ask(client, **fields, objective="accuracy")
    assert "a regression task has no accuracy; use one of rmse, mae, r2" in unescape(page)
    assert not can_start(page)
    page = ask(client, **fields, objective="")
    assert command(page)[-2:] != ["--objective", "accuracy"]
    started = client.post("/v1/sweeps", json=body(page)).json()
    assert started["objective"] == "rmse"
    copied = body(ask(client, like=started["id"]))
    assert (copied["objective"], copied["job"]["task"]) == ("rmse", {"type": "regression"})


def test_a_duplicated_sweep_keeps_its_targets(client: TestClient) -> None:
    targets = {"topic": {"column": "label", "weight": 2}, "stars": {"column": "label"}}
    made = {"job": {**JOB, "task": {"targets": targets}}, "space": {"method.r": [2, 4]}}
    started = client.post("/v1/sweeps", json=made)
    assert started.status_code == 202, started.text
    page = ask(client, like=started.json()["id"])
    assert can_start(page)
    copied, wanted = (SweepCreate.model_validate(each) for each in (body(page), made))
    assert copied.job.task == wanted.job.task
    options = command(page)
    assert "weight" in json.loads(options[options.index("--targets") + 1])["topic"]
