"""A sweep beside a loop: what is told from a few cells, and that both sides do the same task."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.jobs.schemas import JobCreate
from benchmarks.kept import Kept, choose
from benchmarks.sweep import ours, report
from benchmarks.sweep.limit import Limit
from benchmarks.sweep.plan import CELLS, FULL, QUICK, SAMPLED, method
from benchmarks.train.trainer import arguments
from lora_core import runtime
from lora_core.specs.train import RuntimeSpec

TOP_KEYS = {
    "grid", "halving", "best_of_grid_accuracy", "best_of_grid", "winner_vs_best", "rivals", "cells",
    "sampled", "computed", "processor", "versions", "date",
}  # fmt: skip
# Of one cell each; a loop over 24 takes 12 of the first kind and 12 of the second.
CELL_SECONDS = {
    "rival-default-qv-8": 100.0,
    "rival-default-qv_mlp-8": 200.0,
    "rival-tuned-qv-4": 10.0,
    "rival-tuned-qv-16": 20.0,
    "rival-tuned-qv_mlp-4": 30.0,
    "rival-tuned-qv_mlp-16": 50.0,
}


def row(number: int, correct: str, **more: Any) -> dict[str, Any]:
    """A cell of ours that nobody trained."""
    right = correct.count("1") / len(correct)
    settings = {"method.alpha": 16.0, "method.r": 4, "method.targets": ["query", "value"]}
    made = {"number": number, "settings": settings, "validation": 0.5, "test": right}
    return made | {"correct": correct, "texts": "same", "data": "same"} | more


def invented(cell: str) -> dict[str, Any]:
    """Figures of a cell that nobody measured."""
    match cell:
        case "ours-grid":
            rows = [row(number, "1000") for number in range(24)]
            rows[7], rows[9] = row(7, "1110"), row(9, "1100")
            return {"sweep_seconds": 100.0, "winner": 9, "cells": rows}
        case "ours-halving":
            left = row(0, "1111") | {"test": None}
            return {"sweep_seconds": 50.0, "winner": 3, "cells": [left, row(3, "1101")]}
    once = {"import_seconds": 6.0, "data_seconds": 4.0}
    computed = {"computed_seconds": 1.0 if cell == "rival-default-qv_mlp-8" else 0.0}
    return {"cell_seconds": CELL_SECONDS[cell], "data": "same"} | once | computed


@pytest.fixture
def results(tmp_path: Path) -> Kept:
    made = choose(tmp_path, quick=False, fresh=False, what="sweep")
    for cell in CELLS:
        made.keep(cell, invented(cell), seconds=1.0)
    return made


def test_the_names_are_those_that_were_asked_for(results: Kept) -> None:
    told = report.summary(results, FULL)
    assert told.keys() == TOP_KEYS
    for name in ("grid", "halving"):
        names = {"seconds", "vs_default", "vs_tuned", "winner", "winner_accuracy"}
        assert told[name].keys() == names
    assert (told["cells"], told["sampled"]) == (24, {"default": 2, "tuned": 4})
    assert told["computed"] == ["rival-default-qv_mlp-8"]
    assert json.loads(json.dumps(told)) == told


def test_the_loop_is_told_from_a_few_cells_of_each_kind(results: Kept) -> None:
    told = report.summary(results, FULL)
    assert told["rivals"]["default"] == {
        "seconds": 12 * 100 + 12 * 200 + 10,
        "seconds_in_processes": 12 * 100 + 12 * 200 + 24 * 10,
    }
    assert told["rivals"]["tuned"]["seconds"] == 12 * 15 + 12 * 40 + 10
    assert (told["grid"]["vs_default"], told["grid"]["vs_tuned"]) == (36.1, 6.7)
    assert (told["halving"]["vs_default"], told["halving"]["vs_tuned"]) == (72.2, 13.4)


def test_winners_are_chosen_by_the_sweep_and_the_best_by_test(results: Kept) -> None:
    told = report.summary(results, FULL)
    assert told["grid"]["winner_accuracy"] == 0.5
    assert told["halving"]["winner_accuracy"] == told["best_of_grid_accuracy"] == 0.75
    versus = told["winner_vs_best"]  # 1101 against 1110
    assert versus["difference"] == 0.0
    assert versus["low"] == -versus["high"] < 0


def test_the_table_tells_every_way_and_every_cell_that_was_timed(results: Kept) -> None:
    table = report.table(results, report.summary(results, FULL))
    assert "alpha 16.0, r 4, targets query value" in table
    (line,) = (each for each in table.splitlines() if "tuned-qv-4" in each)
    assert line.split()[1:3] == ["10.0", "0.0"]
    assert "0.25" in line  # ours of the same settings
    assert all(cell in table for cells in SAMPLED.values() for cell in cells)


@pytest.mark.parametrize("what", ["data", "texts"])
def test_other_texts_are_no_comparison(results: Kept, what: str) -> None:
    figures = results.figures("ours-grid")
    figures["cells"][7][what] = "other"
    with pytest.raises(AssertionError, match="other texts"):
        report.summary(results, FULL)


def test_a_grid_that_is_not_whole_is_no_comparison(results: Kept) -> None:
    results.figures("ours-grid")["cells"].pop()
    with pytest.raises(AssertionError, match="not whole"):
        report.summary(results, FULL)


def test_a_training_that_takes_too_long_is_told_from_its_pace() -> None:
    limit = Limit(steps=100, longest=360, window=60, warmup=2)

    def seconds(steps: int) -> float:
        return 20 + 5.0 * (steps - 2)  # the first two take longer

    ended = next(step for step in range(1, 100) if limit.over(step, seconds(step)))
    assert ended == 2 + 60 // 5
    assert seconds(ended) + limit.rest(ended, seconds(ended)) == pytest.approx(seconds(100))
    assert limit.rest(100, seconds(100)) == 0.0


@pytest.mark.parametrize(("pace", "ended"), [(3.5, False), (3.7, True)])
def test_a_training_that_is_short_enough_goes_on(pace: float, ended: bool) -> None:
    limit = Limit(steps=100, longest=360, window=60, warmup=0)
    assert any(limit.over(step, pace * step) for step in range(1, 100)) is ended


def test_only_whole_passes_are_measured() -> None:
    limit = Limit(steps=1000, longest=360, window=60, a_pass=50)
    assert [step for step in range(1, 110) if limit.over(step, 2.0 * step)] == [52, 102]


def test_the_rival_has_a_cell_of_each_kind_and_each_is_in_the_grid() -> None:
    for cells in SAMPLED.values():
        kinds = [cell.split("-")[2] for cell in cells]
        assert kinds.count("qv") == kinds.count("qv_mlp") == len(cells) / 2
        assert {int(cell.split("-")[3]) for cell in cells} <= set(FULL.ranks)
    assert len(set(CELLS)) == len(CELLS) == 8


@pytest.mark.parametrize("size", [FULL, QUICK])
def test_both_sides_do_the_same_task(size: Any) -> None:
    sent = ours.body("grid", size)
    spaces = [sent["space"][f"method.{name}"] for name in ("alpha", "r", "targets")]
    assert size.cells == len(spaces[0]) * len(spaces[1]) * len(spaces[2])
    machine = runtime.setup_runtime(RuntimeSpec(device="cpu", threads=1))
    theirs = arguments(1e-3, "tuned", machine, epochs=1)
    for kind, roles in zip(("qv", "qv_mlp"), spaces[2], strict=True):
        alpha, rank = 16.0, spaces[1][0]
        assert alpha in spaces[0]
        chosen = sent["job"]["method"] | {"alpha": alpha, "r": rank, "targets": roles}
        job = JobCreate(**(sent["job"] | {"method": chosen}))
        assert job.method == method(kind, rank)
        assert (job.data, job.stop.evaluations_per_epoch) == (size.data, 1)
        optim = job.optim
        assert (optim.epochs, optim.learning_rate, optim.batch_size, optim.warmup) == (
            theirs.num_train_epochs,
            theirs.learning_rate,
            theirs.per_device_train_batch_size,
            theirs.warmup_steps,
        )
        assert (optim.weight_decay, optim.decay) == (theirs.weight_decay, theirs.lr_scheduler_type)
        assert optim.max_grad_norm == theirs.max_grad_norm
        assert optim.head_dropout == optim.encoder_dropout == 0.0
        assert job.runtime.seed == theirs.seed


class MadeUp:
    """A service that finishes a sweep at the third look."""

    def __init__(self, states: list[str]) -> None:
        self.states = states
        self.sent: Any = None

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        figures = {"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.5}}
        plain = {"state": "succeeded", "share": 1.0, "seconds": 9.0, "job_id": "j", "other": 1}
        left = {"state": "stopped", "share": 0.1, "seconds": 2.0, "job_id": None}
        match method, path:
            case "POST", "/v1/sweeps":
                self.sent = arguments["json"]
                return {"id": "s"}
            case "GET", "/v1/sweeps/s":
                return {"state": self.states.pop(0), "verdict": {"winner": {"number": 2}}}
            case "GET", "/v1/sweeps/s/cells":
                return [
                    {"number": 1, "settings": {"method.alpha": 4}, "figures": None} | left,
                    {"number": 2, "settings": {"method.alpha": 8}, "figures": figures} | plain,
                ]
            case "GET", "/v1/jobs/j":
                return {"artifact_id": "a"}
            case "GET", "/v1/artifacts/a":
                return {"data_sha256": "abc"}
        raise AssertionError(path)

    def request(self, method: str, path: str, **_: Any) -> Any:
        assert (method, path) == ("GET", "/v1/artifacts/a/files/predictions/test.jsonl")
        lines = [{"row": 5, "label": 1, "predicted": 1}, {"row": 7, "label": 0, "predicted": 1}]
        return SimpleNamespace(text="".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LOOK_SECONDS", 0.0)


def test_a_sweep_is_waited_for_and_read() -> None:
    service, wanted = MadeUp(["queued", "running", "finished"]), ours.body("halving", QUICK)
    told = ours.sweep(service, wanted)
    assert service.sent["strategy"] == {"type": "halving", **QUICK.halving}
    left, chosen = told["cells"]
    assert (left["test"], left["validation"], "correct" in left) == (None, None, False)
    assert (chosen["correct"], chosen["test"], chosen["data"]) == ("10", 0.5, "abc")
    assert report.winner(told) == chosen


def test_a_sweep_that_fails_ends_the_measurement() -> None:
    with pytest.raises(SystemExit, match="no result"):
        ours.sweep(MadeUp(["running", "failed"]), ours.body("grid", QUICK))
