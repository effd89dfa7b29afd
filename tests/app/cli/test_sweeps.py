"""`loraworks sweep list, show, trials, pause, …` against a running service."""

import pytest

from tests.app.cli.conftest import Run, SweepJobWorker, answer


def started(cli: Run, *options: str) -> str:
    return str(answer(cli("sweep", "start", *options, "--json"))["id"])


def words(text: str) -> str:
    return " ".join(text.split())


def test_sweeps_are_listed_newest_first(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    assert "loraworks sweep start" in cli("sweep", "list").stdout
    first = started(cli, "--over", "r=2,4", "--name", "first")
    sweep_job_worker.run_jobs(1)
    second = started(cli, "--over", "r=8")
    cli("sweep", "pause", second)
    assert [each["id"] for each in answer(cli("sweep", "list", "--json"))] == [second, first]
    running = answer(cli("sweep", "list", "--state", "running", "--json"))
    assert [each["id"] for each in running] == [first]
    [line] = [line for line in cli("sweep", "list").stdout.splitlines() if first in line]
    assert line.split()[1:5] == ["first", "grid", "running", "1/2"]


def test_verdict_sentences(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2,4,6", "--name", "ranks")
    early = cli("sweep", "show", sweep).stdout
    assert "No trial has run to its end yet" in early
    assert "3: 1 queued, 2 waiting" in early
    sweep_job_worker.run_jobs(1)
    assert "best so far           trial 1 (r = 2)" in cli("sweep", "show", sweep).stdout
    sweep_job_worker.run_jobs()
    output = words(cli("sweep", "show", sweep).stdout)
    assert "3: 3 succeeded" in output
    assert "winner trial 3 (r = 6)" in output
    assert "validation accuracy 86.0% (95% interval 80.5 to 90.1; 200 texts)" in output
    assert "test accuracy 86.0%" in output
    # Two texts in a hundred more than r = 4, four than r = 2: the one may be chance.
    assert "1 of 2 other trials are within noise of it" in output
    found = answer(cli("sweep", "show", sweep, "--json"))["result"]
    fewer, more = (found[which]["trainable_parameters"] for which in ("cheapest", "winner"))
    assert (
        f"The cheapest of them is trial 2 (r = 4) with {fewer:,} trainable parameters instead of "
        f"{more:,}; its accuracy is 2.0 points lower on validation (95% interval"
    ) in output
    assert "p = 0.12)" in output


def test_single_trial_has_no_comparison(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2")
    sweep_job_worker.run_jobs()
    output = cli("sweep", "show", sweep).stdout
    assert "No other trial was evaluated on the same validation texts." in output
    assert "cheapest" not in output


def test_clear_winner(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2,8")
    sweep_job_worker.run_jobs()
    assert "No other trial is within noise of it" in cli("sweep", "show", sweep).stdout


def test_other_objective_is_shown_next_to_accuracy(
    cli: Run, sweep_job_worker: SweepJobWorker
) -> None:
    sweep = started(cli, "--over", "r=2,8", "--objective", "loss")
    sweep_job_worker.run_jobs()
    output = words(cli("sweep", "show", sweep).stdout)
    assert "validation loss 0.120 validation accuracy 88.0%" in output
    table = cli("sweep", "trials", sweep).stdout.splitlines()
    assert words(table[0]).startswith("trial r state validation loss validation acc test acc ")
    assert [line.split()[1] for line in table[1:]] == ["8", "2"]


def test_trials_are_listed_best_first(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2,4,6,8")
    sweep_job_worker.run_jobs(2)
    sweep_job_worker.should_fail = lambda _: True
    sweep_job_worker.run_jobs(1)
    best_first = answer(cli("sweep", "trials", sweep, "--json"))
    assert [trial["number"] for trial in best_first] == [2, 1, 3, 4]
    head, *lines = cli("sweep", "trials", sweep).stdout.splitlines()
    assert words(head).startswith("trial r state validation acc test acc trainable")
    assert head.split()[-1] == "error"
    assert lines[0].split()[:4] == ["2", "4", "succeeded", "84.0%"]
    assert "The loss is NaN." in lines[2]
    cut = cli("sweep", "trials", sweep, "--limit", "1").stdout
    assert "And 3 more; see --limit." in cut
    assert len(answer(cli("sweep", "trials", sweep, "--limit", "1", "--json"))) == 1


def test_halving_lists_larger_budgets_first(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2,4,6,8", "--strategy", "halving", "--min-full-runs", "1")
    sweep_job_worker.run_jobs(5)  # the first rung, and one of its best two at the second
    trials = answer(cli("sweep", "trials", sweep, "--json"))
    assert [trial["number"] for trial in trials] == [3, 4, 2, 1]
    table = cli("sweep", "trials", sweep).stdout
    assert "budget" in table
    assert "33.3%" in table


def test_reused_trials_are_marked(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    started(cli, "--over", "r=2")
    sweep_job_worker.run_jobs()
    again = started(cli, "--over", "r=2")
    assert "succeeded, reused" in cli("sweep", "trials", again).stdout


def test_a_sweep_is_paused_stopped_and_resumed(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2,4")
    output = cli("sweep", "pause", sweep).stdout
    assert output == f"Sweep {sweep} is paused. Trials: 2: 2 waiting.\n"
    assert sweep_job_worker.run_jobs() == 0
    assert answer(cli("sweep", "stop", sweep, "--json"))["state"] == "stopped"
    assert answer(cli("sweep", "resume", sweep, "--json"))["state"] == "running"
    assert sweep_job_worker.run_jobs() == 2
    refused = cli("sweep", "pause", sweep)
    assert refused.exit_code == 3
    assert "(invalid_sweep_transition)" in refused.stderr


def test_failed_trials_are_retried(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2,4")
    sweep_job_worker.should_fail = lambda spec: bool(spec["method"]["r"] == 2)
    sweep_job_worker.run_jobs()
    sweep_job_worker.should_fail = lambda _: False
    assert answer(cli("sweep", "retry", sweep, "--json"))["trial_counts"]["queued"] == 1
    assert sweep_job_worker.run_jobs() == 1
    assert answer(cli("sweep", "show", sweep, "--json"))["trial_counts"]["succeeded"] == 2


def test_sweep_is_extended_by_values_and_trials(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    grid = started(cli, "--over", "r=2,4")
    grown = answer(cli("sweep", "extend", grid, "--over", "r=4,8", "--json"))
    assert (grown["trial_count"], grown["space"]["method.r"]) == (3, [2, 4, 8])
    drawn = started(cli, "--over", "r=1..32", "--strategy", "random", "--trials", "2")
    assert "4: " in cli("sweep", "extend", drawn, "--trials", "4").stdout
    for options, code, text in (
        ([], 2, "give --over or --trials"),
        (["--over", "r"], 2, "(wrong_space)"),
        (["--over", "alpha=1"], 3, "(unknown_field)"),
        (["--over", "r=2"], 3, "(nothing_to_extend)"),
        (["--trials", "9"], 3, "(nothing_to_extend)"),
        (["--trials", "0"], 3, "(validation_failed)"),
    ):
        refused = cli("sweep", "extend", grid, *options)
        assert refused.exit_code == code, options
        assert text in refused.stderr


def test_running_sweep_cannot_be_deleted(cli: Run) -> None:
    sweep = started(cli, "--over", "r=2,4")
    refused = cli("sweep", "delete", sweep)
    assert refused.exit_code == 3
    assert "(sweep_not_finished)" in refused.stderr
    cli("sweep", "stop", sweep)
    assert cli("sweep", "delete", sweep).stdout == f"Deleted sweep {sweep}.\n"
    assert answer(cli("sweep", "list", "--json")) == []


@pytest.mark.parametrize("sweep", ["0198c0de-0000-7000-8000-000000000000", "../jobs"])
def test_unknown_sweep_is_rejected(cli: Run, sweep: str) -> None:
    for command, *options in (
        *(["show"], ["trials"], ["watch"], ["pause"], ["stop"], ["resume"], ["retry"], ["delete"]),
        *(["results"], ["results", "--format", "json"], ["promote", "sentiment"]),
        ["extend", "--trials", "3"],
    ):
        result = cli("sweep", command, sweep, *options)
        assert result.exit_code == 3, command
        assert "(sweep_not_found)" in result.stderr or "(not_found)" in result.stderr
        assert result.stdout == ""
