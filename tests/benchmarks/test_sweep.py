"""The sweep benchmark: extrapolation from sampled trials, and equal settings of both sides."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.jobs.schemas import JobCreate
from benchmarks.results_file import ResultsFile, choose
from benchmarks.sweep import ours, overhead, report
from benchmarks.sweep.limit import Limit
from benchmarks.sweep.plan import CELLS, FULL, QUICK, method
from benchmarks.train.trainer import arguments
from lora_core import runtime
from lora_core.specs.train import RuntimeSpec

# Of one trial each; a loop over 24 takes 12 of the first kind and 12 of the second.
TRIAL_SECONDS = {
    "competitor-default-qv-8": 100.0,
    "competitor-default-qv_mlp-8": 200.0,
    "competitor-tuned-qv-4": 10.0,
    "competitor-tuned-qv-16": 20.0,
    "competitor-tuned-qv_mlp-4": 30.0,
    "competitor-tuned-qv_mlp-16": 50.0,
}


def row(number: int, correct: str, **more: Any) -> dict[str, Any]:
    """A made-up trial of our side."""
    right = correct.count("1") / len(correct)
    settings = {"method.alpha": 16.0, "method.r": 4, "method.targets": ["query", "value"]}
    made = {"number": number, "settings": settings, "validation": 0.5, "test": right}
    return made | {"correct": correct, "texts": "same", "data": "same"} | more


def example_metrics(cell: str) -> dict[str, Any]:
    """Made-up metrics of a cell."""
    match cell:
        case "ours-grid":
            rows = [row(number, "1000") for number in range(24)]
            rows[7], rows[9] = row(7, "1110"), row(9, "1100")
            return {"sweep_seconds": 100.0, "winner": 9, "trials": rows}
        case "ours-halving":
            left = row(0, "1111") | {"test": None}
            return {"sweep_seconds": 50.0, "winner": 3, "trials": [left, row(3, "1101")]}
    once = {"import_seconds": 6.0, "data_seconds": 4.0}
    computed = {"computed_seconds": 1.0 if cell == "competitor-default-qv_mlp-8" else 0.0}
    return {"trial_seconds": TRIAL_SECONDS[cell], "data": "same"} | once | computed


@pytest.fixture
def results(tmp_path: Path) -> ResultsFile:
    made = choose(tmp_path, quick=False, fresh=False, what="sweep")
    for cell in CELLS:
        made.add(cell, example_metrics(cell), seconds=1.0)
    return made


def test_loop_time_is_extrapolated_from_sampled_trials(results: ResultsFile) -> None:
    summary = report.summary(results, FULL)
    assert summary["competitors"]["default"] == {
        "seconds": 12 * 100 + 12 * 200 + 10,
        "seconds_in_processes": 12 * 100 + 12 * 200 + 24 * 10,
    }
    assert summary["competitors"]["tuned"]["seconds"] == 12 * 15 + 12 * 40 + 10
    assert (summary["grid"]["vs_default"], summary["grid"]["vs_tuned"]) == (36.1, 6.7)
    assert (summary["halving"]["vs_default"], summary["halving"]["vs_tuned"]) == (72.2, 13.4)


def test_winner_is_compared_with_the_best_on_test(results: ResultsFile) -> None:
    summary = report.summary(results, FULL)
    assert summary["grid"]["winner_accuracy"] == 0.5
    assert summary["halving"]["winner_accuracy"] == summary["best_of_grid_accuracy"] == 0.75
    versus = summary["winner_vs_best"]  # 1101 against 1110
    assert versus["difference"] == 0.0
    assert versus["low"] == -versus["high"] < 0


@pytest.mark.parametrize("what", ["data", "texts"])
def test_different_texts_are_not_compared(results: ResultsFile, what: str) -> None:
    metrics = results.metrics("ours-grid")
    metrics["trials"][7][what] = "other"
    with pytest.raises(AssertionError, match="other texts"):
        report.summary(results, FULL)


def test_incomplete_grid_is_not_compared(results: ResultsFile) -> None:
    results.metrics("ours-grid")["trials"].pop()
    with pytest.raises(AssertionError, match="not whole"):
        report.summary(results, FULL)


def test_long_training_is_extrapolated_from_its_throughput() -> None:
    limit = Limit(steps=100, longest=360, window=60, warmup=2)

    def seconds(steps: int) -> float:
        return 20 + 5.0 * (steps - 2)  # the first two take longer

    ended = next(step for step in range(1, 100) if limit.over(step, seconds(step)))
    assert ended == 2 + 60 // 5
    assert seconds(ended) + limit.rest(ended, seconds(ended)) == pytest.approx(seconds(100))
    assert limit.rest(100, seconds(100)) == 0.0


@pytest.mark.parametrize("size", [FULL, QUICK])
def test_both_sides_have_the_same_settings(size: Any) -> None:
    sent = ours.body("grid", size)
    spaces = [sent["space"][f"method.{name}"] for name in ("alpha", "r", "targets")]
    assert size.trials == len(spaces[0]) * len(spaces[1]) * len(spaces[2])
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
    """A fake service whose sweep finishes at the third poll."""

    def __init__(self, states: list[str]) -> None:
        self.states = states
        self.sent: Any = None

    def request_json(self, method: str, path: str, **arguments: Any) -> Any:
        metrics = {"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.5}}
        plain = {"state": "succeeded", "budget": 1.0, "seconds": 9.0, "job_id": "j", "other": 1}
        left = {"state": "stopped", "budget": 0.1, "seconds": 2.0, "job_id": None}
        match method, path:
            case "POST", "/v1/sweeps":
                self.sent = arguments["json"]
                return {"id": "s"}
            case "GET", "/v1/sweeps/s":
                return {"state": self.states.pop(0), "result": {"winner": {"number": 2}}}
            case "GET", "/v1/sweeps/s/trials":
                return [
                    {"number": 1, "settings": {"method.alpha": 4}, "metrics": None} | left,
                    {"number": 2, "settings": {"method.alpha": 8}, "metrics": metrics} | plain,
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


def test_sweep_results_are_read_after_it_finishes() -> None:
    service, wanted = MadeUp(["queued", "running", "finished"]), ours.body("halving", QUICK)
    swept = ours.sweep(service, wanted)
    assert service.sent["strategy"] == {"type": "halving", **QUICK.halving}
    left, chosen = swept["trials"]
    assert (left["test"], left["validation"], "correct" in left) == (None, None, False)
    assert (chosen["correct"], chosen["test"], chosen["data"]) == ("10", 0.5, "abc")
    assert report.winner(swept) == chosen


def test_failed_sweep_ends_the_measurement() -> None:
    with pytest.raises(SystemExit, match="no result"):
        ours.sweep(MadeUp(["running", "failed"]), ours.body("grid", QUICK))


@pytest.mark.slow  # starts a worker
@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_overhead_is_that_of_trials_that_succeed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overhead, "SPACE", {"method.alpha": [1, 4]})
    monkeypatch.setattr(overhead, "TRIALS", 2)
    overhead.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert min(report[f"{name}_ms"] for name in ("start", "trial", "advance")) >= 0
