"""The forms of sweeps: what is typed is planned, and sent as the API and commands take it."""

import json
import re
import shlex
from html import unescape
from typing import Any, get_args

import pytest
from starlette.testclient import TestClient

from app.cli.spec_flags import FLAGS, option_names
from app.cli.sweep_options import place_of
from app.cli.sweep_start import ABOUT, SEARCH, Strategy
from app.sweeps.presets import PRESETS
from app.sweeps.schemas import SweepCreate
from app.sweeps.search_space import ALL_ROLES
from app.web import sweep_form
from tests.app.sweeps.conftest import JOB, SPACE

GRID = {"strategy.type": "grid", "space.method.r": "2,4", "job.data.train_size": "100"}


def ask(client: TestClient, path: str = "/sweeps/new", **typed: str) -> str:
    answer = client.get(path, params=typed)
    assert answer.status_code == 200, answer.text
    return answer.text


def body(page: str) -> dict[str, Any]:
    """What the button sends."""
    found = re.search(r'id="start"[^>]*? data-body="([^"]*)"', page)
    assert found
    read: dict[str, Any] = json.loads(unescape(found[1]))
    return read


def can_start(page: str) -> bool:
    found = re.search(r'<button[^>]*id="start"[^>]*>', page)
    assert found
    return " disabled" not in found[0]


def faults(page: str) -> dict[str, str]:
    """By the id of the field, what is told at it."""
    told = re.findall(r'<p class="error" id="([\w-]+)-fault">(.*?)</p>', page)
    return {name: unescape(text) for name, text in told}


def plan(page: str) -> str:
    shown = page.partition('id="plan"')[2].partition("</dl>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", shown.partition(">")[2]).split())


def command(page: str) -> list[str]:
    text = unescape(page.partition('id="command"')[2].partition(">")[2].partition("</pre>")[0])
    return shlex.split(text.replace("\\\n", ""))


def test_the_first_look_has_an_example_that_can_be_started(client: TestClient) -> None:
    page = ask(client)
    assert can_start(page)
    assert plan(page).startswith("Cells 9 Trains 231,554 to 480,386 parameters Time about ")
    assert "no worker is there now" in plan(page)
    started = client.post("/v1/sweeps", json=body(page))
    assert started.status_code == 202
    assert started.json()["cells"] == 9


def test_what_is_typed_is_what_is_sent(client: TestClient) -> None:
    page = ask(
        client,
        **{
            "job.data.source": "imdb",
            "job.data.train_size": "0.5",
            "job.optim.epochs": "3",
            "job.result.train_figures": "true",
            "space.method.targets": "query+value, all",
            "space.optim.learning_rate": "log:1e-4..1e-2x3",
            "more": "method.dropout=0.0..0.3\n\n method.head = train,lora ",
            "strategy.type": "random",
            "strategy.cells": "7",
            "strategy.eta": "4",  # of another strategy
            "name": "123",
            "objective": "macro_f1",
            "parallel": "",
        },
    )
    assert body(page) == {
        "job": {
            "method": {"type": "lora"},
            "data": {"source": "imdb", "train_size": 0.5},
            "optim": {"epochs": 3},
            "result": {"train_figures": True},
        },
        "space": {
            "method.targets": [["query", "value"], ALL_ROLES],
            "optim.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "count": 3},
            "method.dropout": {"low": 0.0, "high": 0.3},
            "method.head": ["train", "lora"],
        },
        "strategy": {"type": "random", "cells": 7},
        "name": "123",
        "objective": "macro_f1",
    }
    assert "Cells 7" in plan(page)


@pytest.mark.parametrize(
    ("typed", "where", "told"),
    [
        ({"space.method.r": "2,,4"}, "space-method-r", "a value is empty"),
        ({"space.method.alpha": "8.."}, "space-method-alpha", "a range is LOW..HIGH"),
        ({"space.method.alpha": "9..3"}, "space-method-alpha", "`low` must be less than `high`"),
        ({"space.method.r": "log:1..64"}, "space-method-r", "Say how many"),
        ({"space.method.r": "2,2"}, "", "each value of method.r may stand once"),
        ({"space.method.r": "2,x"}, "space-method-r", "must be a whole number"),
        ({"space.method.r": "2,5000"}, "space-method-r", "must be at most 4,096"),
        ({"more": "method.headd=1,2"}, "more", "perhaps head is meant"),
        ({"more": "head"}, "more", "a line is FIELD=VALUES"),
        ({"more": "method.r=8"}, "more", "method.r stands here twice"),
        ({"job.optim.epochs": "two"}, "job-optim-epochs", "must be a whole number, not a text"),
        ({"job.data.source": "nothing"}, "job-data-source", "nothing"),
        ({"strategy.type": "tpe"}, "strategy-cells", "is missing"),
        ({"strategy.type": "random", "strategy.cells": "99"}, "strategy-cells", "only 2"),
        ({"strategy.type": "halving", "strategy.eta": "1"}, "strategy-eta", "at least 2"),
        ({"job.base": "nothing"}, "job-base", "No base model"),
        ({"space.method.r": ""}, "", "Nothing varies yet"),
        ({"strategy.type": "lucky"}, "", "must be one of"),
        ({"space.runtime.seed": "0..9000"}, "", "18,002 cells"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_field(
    client: TestClient, typed: dict[str, str], where: str, told: str
) -> None:
    page = ask(client, **{**GRID, **typed})
    assert not can_start(page)
    shown = faults(page)
    if where:
        assert told in shown[where]
        field = re.search(rf'id="{where}"[^>]*', page)
        assert field
        assert 'aria-invalid="true"' in field[0]
        assert f"{where}-fault" in field[0]
    else:
        general = page.partition('id="faults"')[2].partition("</div>")[0]
        assert told in unescape(general)


def test_faults_of_all_fields_are_told_at_once(client: TestClient) -> None:
    page = ask(client, **{**GRID, "space.method.alpha": "8..", "job.optim.epochs": "two"})
    assert set(faults(page)) == {"space-method-alpha", "job-optim-epochs"}


def test_what_was_typed_stays(client: TestClient) -> None:
    page = ask(client, **{**GRID, "space.method.alpha": '"><script>', "more": "</textarea><b>"})
    assert '"><script>' not in page
    assert "</textarea><b>" not in page
    assert 'value="&#34;&gt;&lt;script&gt;"' in page


@pytest.mark.parametrize("strange", ["NaN", "1e999", "[[[[", "\x00", "9" * 5000, "{}"])
def test_strange_values_are_refused_in_words(client: TestClient, strange: str) -> None:
    for place in ("space.optim.learning_rate", "job.optim.epochs", "job.data.source", "job.base"):
        page = ask(client, **{**GRID, place: strange})
        assert not can_start(page), place
        assert faults(page) or "could never run" in page, place


def test_halving_tells_its_rungs_and_what_is_known_is_counted(client: TestClient) -> None:
    typed = {**GRID, "space.method.alpha": "4,8,16,32", "strategy.type": "halving"}
    page = ask(client, **{**typed, "strategy.keep": "1"})
    assert "Of them run 8 to 11 %, 3 to 33 %, 1 to the end" in plan(page)


def test_options_are_those_of_the_command_line() -> None:
    for place, option in sweep_form.OPTIONS.items():
        inside = place.removeprefix("job.")
        of_strategy = place.removeprefix("strategy.")
        if place == "strategy.type":
            flag = Strategy
        elif of_strategy != place:
            flag = SEARCH[of_strategy]
        else:
            flag = ABOUT[place] if place in ABOUT else FLAGS[inside]
        known = flag if hasattr(flag, "__metadata__") else get_args(flag)[0]
        assert option in option_names(known), place


def test_the_command_says_the_same(client: TestClient) -> None:
    page = ask(
        client,
        **GRID,
        **{"space.optim.learning_rate": "1e-3, 1e-4", "name": "it's", "more": "method.head=lora"},
    )
    words = command(page)
    assert words[:3] == ["loraworks", "sweep", "start"]
    said = dict(zip(words[5::2], words[6::2], strict=True))
    assert said["--name"] == "it's"
    assert said["--train-size"] == "100"
    over = [words[at + 1] for at, word in enumerate(words) if word == "--over"]
    assert over == ["r=2,4", "learning-rate=1e-3, 1e-4", "method.head=lora"]
    named = [place_of(each.partition("=")[0]) for each in over]
    assert named == list(body(page)["space"])
    page = ask(client, **GRID, **{"job.result.train_figures": "true"})
    assert "--file" in command(page)  # no option says that


def test_a_preset_fills_the_form(client: TestClient) -> None:
    answer = client.get("/sweeps/new?preset=seed-grid")
    assert "Cells 576" in plan(answer.text)
    wanted = SweepCreate.model_validate(PRESETS["seed-grid"])
    sent = SweepCreate.model_validate(body(answer.text))
    assert sent == wanted
    assert list(sent.space) == list(wanted.space)


def test_a_form_like_a_sweep_sends_the_same(client: TestClient) -> None:
    made: dict[str, Any] = {
        "job": {
            **JOB,
            "optim": {"warmup": 0.5, "epochs": 4},
            "data": {"source": {"train": "imdb", "test": "imdb"}, "text_column": "text"},
        },
        "space": {**SPACE, "optim.learning_rate": {"low": 1e-4, "high": 0.01, "log": True}},
        "strategy": {"type": "halving", "cells": 5, "keep": 2},
        "objective": "loss",
        "name": "first, of many",
        "priority": 3,
    }
    sweep = client.post("/v1/sweeps", json=made)
    assert sweep.status_code == 202, sweep.text
    page = client.get(f"/sweeps/new?like={sweep.json()['id']}").text
    assert faults(page) == {}
    sent = body(page)
    # What does not vary is sent as a field with one value, where the form has no other place.
    assert sent["space"].pop("method.targets") == [["query", "value"]]
    assert sent["space"].pop("optim.warmup") == [0.5]
    assert sent["space"].pop("data.text_column") == ["text"]
    assert sent["space"] == made["space"]
    assert sent["strategy"].items() >= {"type": "halving", "cells": 5, "keep": 2}.items()
    assert (sent["objective"], sent["name"], sent["priority"]) == ("loss", "first, of many", 3)
    assert sent["job"]["data"]["source"] == {"train": "imdb", "test": "imdb"}


def test_more_cells_are_counted_before_they_are_added(client: TestClient) -> None:
    sweep_id = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE}).json()["id"]
    path = f"/sweeps/{sweep_id}/extend"
    page = ask(client, path)
    assert not can_start(page)
    assert "There: 2, 4, 8" in page
    page = ask(client, path, **{"space.method.r": "8,16"})
    assert "4 cells to the 12 that are there." in page
    assert body(page) == {"space": {"method.r": [8, 16]}}
    assert command(page)[-2:] == ["--over", "r=8,16"]
    assert client.post(f"/v1{path}", json=body(page)).json()["cells"] == 16


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ({"space.method.r": "2"}, "all of them are there"),
        ({"space.method.r": "2.."}, "a range is LOW..HIGH"),
        ({"space.method.r": "x"}, "could never run"),
        ({"cells": "5"}, "a grid grows by values"),
        ({"cells": "many"}, "whole number"),
    ],
)
def test_an_extension_that_adds_nothing_is_told(
    client: TestClient, typed: dict[str, str], told: str
) -> None:
    sweep_id = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE}).json()["id"]
    page = ask(client, f"/sweeps/{sweep_id}/extend", **typed)
    assert not can_start(page)
    assert told in unescape(page)


def test_cells_that_are_drawn_can_be_more(client: TestClient) -> None:
    sent = {"job": JOB, "space": SPACE, "strategy": {"type": "random", "cells": 4}}
    sweep_id = client.post("/v1/sweeps", json=sent).json()["id"]
    page = ask(client, f"/sweeps/{sweep_id}/extend", cells="6")
    assert "2 cells to the 4 that are there." in page
    assert command(page)[-2:] == ["--cells", "6"]
