"""`loraworks sweep start` and `sweep preset` against a running service."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from app.cli import polling, sweep_start
from app.sweeps import strategies
from tests.app.cli.conftest import Run, SweepJobWorker, answer


def started(cli: Run, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = answer(cli("sweep", "start", *options, "--json"))
    return found


def planned(cli: Run, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = answer(cli("sweep", *options, "--dry-run", "--json"))
    return found


def test_options_cover_all_strategies() -> None:
    kinds = get_args(get_args(strategies.Strategy)[0])
    named = tuple(kind.model_fields["type"].default for kind in kinds)
    assert get_args(sweep_start.StrategyName) == named


def test_options_become_the_body(cli: Run) -> None:
    sweep = started(
        cli, "--over", "r=2,4,8", "--over", "lr=log:1e-4..1e-2", "--over",
        "targets=query+value,all",
        "--strategy", "halving", "--trials", "9", "--eta", "2", "--min-budget", "0.25",
        "--min-full-runs", "2", "--validation-texts", "300", "--search-seed", "7",
        "--objective", "macro_f1",
        "--max-parallel-jobs", "3", "--name", "mine", "--priority", "5", "--alpha", "32",
        "--epochs", "3", "--train-size", "500",
    )  # fmt: skip
    assert sweep["space"] == {
        "method.r": [2, 4, 8],
        "optim.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "count": None},
        "method.targets": [
            ["query", "value"],
            ["query", "key", "value", "projection", "mlp"],
        ],
    }
    assert sweep["strategy"] == {
        "type": "halving", "eta": 2, "min_budget": 0.25, "min_full_runs": 2,
        "validation_texts": 300, "trials": 9, "seed": 7,
    }  # fmt: skip
    assert sweep["job"] == {
        "method": {"type": "lora", "alpha": 32.0},
        "data": {"train_size": 500},
        "optim": {"epochs": 3},
    }
    about = ("objective", "max_parallel_jobs", "name", "priority", "trial_count")
    assert [sweep[field] for field in about] == ["macro_f1", 3, "mine", 5, 9]


def test_tpe_has_its_own_options(cli: Run) -> None:
    sweep = started(
        cli, "--over", "lr=1e-4..1e-2", "--strategy", "tpe", "--trials", "6", "--batch", "2"
    )
    assert sweep["strategy"] == {"type": "tpe", "trials": 6, "batch": 2, "seed": 0}
    assert sweep["trial_count"] == 2
    assert "6: 1 queued, 1 waiting, 4 to come" in cli("sweep", "show", sweep["id"]).stdout
    assert " 0/6 " in cli("sweep", "list").stdout


def test_a_file_is_uploaded(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\n" + "".join(f"film {i},{'ab'[i % 2]}\n" for i in range(20)))
    options = ("--data", str(file), "--over", "r=2,4")
    dry = cli("sweep", "start", *options, "--dry-run")
    assert (dry.exit_code, "(file_not_uploaded)" in dry.stderr) == (2, True)
    assert started(cli, *options)["job"]["data"]["source"] == "films:1"


def test_default_strategy_is_grid(cli: Run) -> None:
    sweep = started(cli, "--over", "dropout=0..0.2x3", "--over", "seed=0,1")
    assert (sweep["strategy"], sweep["trial_count"]) == ({"type": "grid"}, 6)


def test_options_override_the_file(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(
        json.dumps(
            {
                "job": {"method": {"type": "lora", "r": 2}, "optim": {"epochs": 9}},
                "space": {"method.alpha": [1, 2], "runtime.seed": [0, 1]},
                "strategy": {"type": "random", "trials": 3, "seed": 5},
                "name": "of the file",
                "metadata": {"team": "a"},
            }
        )
    )
    from_file = started(cli, "--file", str(file))
    assert (from_file["name"], from_file["metadata"]) == ("of the file", {"team": "a"})
    assert from_file["job"]["method"] == {"type": "lora", "r": 2}
    sweep = started(
        cli, "--file", str(file), "--over", "seed=7", "--over", "r=4,8", "--trials", "2",
        "--name", "of the options", "--epochs", "1",
    )  # fmt: skip
    assert sweep["space"] == {"method.alpha": [1, 2], "runtime.seed": [7], "method.r": [4, 8]}
    assert sweep["strategy"] == {"type": "random", "trials": 2, "seed": 5}
    assert (sweep["name"], sweep["job"]["optim"]) == ("of the options", {"epochs": 1})
    other = started(cli, "--file", str(file), "--strategy", "grid")
    assert (other["strategy"], other["trial_count"]) == ({"type": "grid"}, 4)


def test_a_job_may_come_from_a_file_and_a_sweep_from_standard_input(
    cli: Run, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"method": {"type": "baseline"}}))
    assert started(cli, "--spec", str(file), "--over", "seed=0,1")["job"] == {
        "method": {"type": "baseline"}
    }
    body = json.dumps({"job": {"method": {"type": "full"}}, "space": {"runtime.seed": [1]}})
    result = cli("sweep", "start", "--file", "-", "--json", input=body)
    assert answer(result)["job"] == {"method": {"type": "full"}}


def test_dry_run_estimates_and_starts_nothing(cli: Run) -> None:
    options = ("--over", "r=2,4,8", "--over", "seed=0,1,2", "--strategy", "halving")
    plan = planned(cli, "start", *options)
    assert [each["trials"] for each in plan["rungs"]] == [9, 3, 3]
    output = cli("sweep", "start", *options, "--dry-run").stdout
    assert "9 to 11.1%, 3 to 33.3%, 3 to 100.0%" in output
    assert "none: no worker is running" in output
    assert answer(cli("sweep", "list", "--json")) == []


def test_dry_run_reports_reused_trials(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    cli("sweep", "start", "--over", "r=2,4")
    sweep_job_worker.run_jobs(1)
    assert planned(cli, "start", "--over", "r=2,8")["reused"] == 1
    lines = cli("sweep", "start", "--over", "r=2,8", "--dry-run").stdout.splitlines()
    assert "reused                1" in lines


def test_started_sweep_prints_the_watch_command(cli: Run) -> None:
    output = cli("sweep", "start", "--over", "r=2,4").stdout
    sweep = answer(cli("sweep", "list", "--json"))[0]
    assert "2: 1 queued, 1 waiting" in output
    assert f"`loraworks sweep watch {sweep['id']}`" in output


def test_preset_is_the_seed_grid(cli: Run) -> None:
    assert planned(cli, "preset", "seed-grid")["trials"] == 576
    named = answer(
        cli(
            "sweep", "preset", "seed-grid", "--name", "seed", "--data", "rotten-tomatoes", "--over",
            "r=8", "--over", "alpha=1", "--strategy", "random", "--trials", "2", "--json",
        )
    )  # fmt: skip
    assert (named["name"], named["trial_count"]) == ("seed", 2)
    assert named["job"]["preset"] == "seed"
    assert named["job"]["data"] == {"source": "rotten-tomatoes"}
    assert named["job"]["result"] == {"train_metrics": True}
    assert (named["space"]["method.r"], len(named["space"]["method.targets"])) == ([8], 8)
    # What was done to the body did not reach the preset itself.
    assert planned(cli, "preset", "seed-grid")["trials"] == 576


def test_starting_and_watching_ends_with_the_winner(
    cli: Run, sweep_job_worker: SweepJobWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "sleep", lambda _: sweep_job_worker.run_jobs(1))
    result = cli("sweep", "start", "--over", "r=2,4", "--watch", "--json")
    sweep = answer(result)
    assert (sweep["state"], sweep["result"]["winner"]["number"]) == ("finished", 2)
    assert "trial 2 (r = 4) leads with validation accuracy 84.0%" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the search space is empty"),
        (["--over", "r=1,,2"], "a value is empty"),
        (["--over", "r=1", "--trials", "3"], "--trials needs --strategy random, halving, tpe"),
        (["--over", "r=1", "--strategy", "random", "--eta", "3"], "--eta needs --strategy"),
        (["--over", "r=1", "--strategy", "halving", "--batch", "3"], "not halving"),
        (["--over", "r=1", "--strategy", "bayes"], "bayes"),
        (["--over", "r=1", "--objective", "f1"], "f1"),
        (["--over", "lr=NaN"], "not finite"),
        (["--over", "r=1", "--file", "a", "--spec", "b"], "--file and --spec exclude each other"),
        (["--over", "r=1", "--file", "missing.json"], "missing.json"),
    ],
)
def test_invalid_options_exit_with_2_before_any_request(
    run: Run, options: list[str], message: str
) -> None:
    result = run("sweep", "start", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "does not contain a JSON object"),
        ('{"job": 3}', "'job' in the file is not a JSON object"),
        ('{"job": {"method": 3}}', "'method' is not a JSON object"),
        ('{"space": []}', "'space' in the file is not a JSON object"),
        ('{"strategy": "grid"}', "'strategy' in the file is not a JSON object"),
    ],
)
def test_invalid_sweep_file_is_a_usage_error(
    run: Run, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(content)
    result = run("sweep", "start", "--file", str(file), "--over", "r=1")
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--over", "depth=1,2"], "unknown_field"),
        (["--over", "method.depth=1,2"], "unknown_field"),
        (["--over", "lr=1e-2..1e-4x3"], "range_reversed"),
        (["--over", "lr=log:0..1x3"], "range_not_positive"),
        (["--over", "lr=1e-4..1e-2"], "range_needs_count"),
        (["--over", "r=two"], "invalid_trials"),
        (["--over", "r=1,2", "--strategy", "random"], "validation_failed"),
        (["--over", "r=1,2", "--strategy", "random", "--trials", "3"], "space_too_small"),
        (["--over", "r=1,2", "--priority", "101"], "validation_failed"),
    ],
)
def test_rejected_request_exits_with_3_and_its_code(
    cli: Run, options: list[str], code: str
) -> None:
    result = cli("sweep", "start", *options)
    assert result.exit_code == 3
    assert f"({code})" in result.stderr
    assert answer(cli("sweep", "list", "--json")) == []


def test_unknown_preset_is_a_usage_error(run: Run) -> None:
    result = run("sweep", "preset", "weekend")
    assert result.exit_code == 2
    assert "seed-grid" in result.stderr
