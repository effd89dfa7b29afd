"""`loraworks sweep list, show, cells, pause, …` against a running service."""

import pytest

from tests.app.cli.conftest import CellWorker, Run, answer


def started(cli: Run, *options: str) -> str:
    return str(answer(cli("sweep", "start", *options, "--json"))["id"])


def words(text: str) -> str:
    return " ".join(text.split())


def test_sweeps_are_listed_the_newest_first(cli: Run, cell_worker: CellWorker) -> None:
    assert "loraworks sweep start" in cli("sweep", "list").stdout
    first = started(cli, "--over", "r=2,4", "--name", "first")
    cell_worker.work(1)
    second = started(cli, "--over", "r=8")
    cli("sweep", "pause", second)
    assert [each["id"] for each in answer(cli("sweep", "list", "--json"))] == [second, first]
    running = answer(cli("sweep", "list", "--state", "running", "--json"))
    assert [each["id"] for each in running] == [first]
    [line] = [line for line in cli("sweep", "list").stdout.splitlines() if first in line]
    assert line.split()[1:5] == ["first", "grid", "running", "1/2"]


def test_the_verdict_is_told_in_words(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,4,6", "--name", "ranks")
    early = cli("sweep", "show", sweep).stdout
    assert "No cell has run to its end yet" in early
    assert "3: 1 queued, 2 waiting" in early
    cell_worker.work(1)
    assert "best so far           cell 1 (r = 2)" in cli("sweep", "show", sweep).stdout
    cell_worker.work()
    told = words(cli("sweep", "show", sweep).stdout)
    assert "3: 3 succeeded" in told
    assert "winner cell 3 (r = 6)" in told
    assert "validation accuracy 86.0 % (95 % interval 80.5 to 90.1; 200 texts)" in told
    assert "test accuracy 86.0 %" in told
    # Two texts in a hundred more than r = 4, four than r = 2: the one may be chance.
    assert "1 of 2 other cells are within noise of it" in told
    found = answer(cli("sweep", "show", sweep, "--json"))["verdict"]
    fewer, more = (found[which]["trainable_parameters"] for which in ("cheapest", "winner"))
    assert (
        f"The cheapest of them is cell 2 (r = 4) with {fewer:,} trainable parameters instead of "
        f"{more:,}; its accuracy is 2.0 points lower on validation (95 % interval"
    ) in told
    assert "p = 0.12)" in told


def test_one_cell_alone_has_nothing_to_be_compared_with(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2")
    cell_worker.work()
    told = cli("sweep", "show", sweep).stdout
    assert "No other cell is known to have answered the same validation texts." in told
    assert "cheapest" not in told


def test_a_clear_winner_is_told_as_one(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,8")
    cell_worker.work()
    assert "No other cell is within noise of it" in cli("sweep", "show", sweep).stdout


def test_another_objective_is_told_beside_the_accuracy(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,8", "--objective", "loss")
    cell_worker.work()
    told = words(cli("sweep", "show", sweep).stdout)
    assert "validation loss 0.120 validation accuracy 88.0 %" in told
    table = cli("sweep", "cells", sweep).stdout.splitlines()
    assert words(table[0]).startswith("cell r state validation loss validation acc test acc ")
    assert [line.split()[1] for line in table[1:]] == ["8", "2"]


def test_cells_are_shown_the_best_first(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,4,6,8")
    cell_worker.work(2)
    cell_worker.fails = lambda _: True
    cell_worker.work(1)
    best_first = answer(cli("sweep", "cells", sweep, "--json"))
    assert [cell["number"] for cell in best_first] == [2, 1, 3, 4]
    head, *lines = cli("sweep", "cells", sweep).stdout.splitlines()
    assert words(head).startswith("cell r state validation acc test acc trainable")
    assert head.split()[-1] == "error"
    assert lines[0].split()[:4] == ["2", "4", "succeeded", "84.0"]
    assert "The loss is NaN." in lines[2]
    cut = cli("sweep", "cells", sweep, "--limit", "1").stdout
    assert "And 3 more; see --limit." in cut
    assert len(answer(cli("sweep", "cells", sweep, "--limit", "1", "--json"))) == 1


def test_of_a_halving_those_that_ran_further_come_first(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,4,6,8", "--strategy", "halving", "--keep", "1")
    cell_worker.work(5)  # the first rung, and one of its best two at the second
    cells = answer(cli("sweep", "cells", sweep, "--json"))
    assert [cell["number"] for cell in cells] == [3, 4, 2, 1]
    table = cli("sweep", "cells", sweep).stdout
    assert "of its steps" in table
    assert "33.3 %" in table


def test_cells_that_were_known_are_marked(cli: Run, cell_worker: CellWorker) -> None:
    started(cli, "--over", "r=2")
    cell_worker.work()
    again = started(cli, "--over", "r=2")
    assert "succeeded, known" in cli("sweep", "cells", again).stdout


def test_a_sweep_is_paused_stopped_and_resumed(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,4")
    told = cli("sweep", "pause", sweep).stdout
    assert told == f"Sweep {sweep} is paused. Cells: 2: 2 waiting.\n"
    assert cell_worker.work() == 0
    assert answer(cli("sweep", "stop", sweep, "--json"))["state"] == "stopped"
    assert answer(cli("sweep", "resume", sweep, "--json"))["state"] == "running"
    assert cell_worker.work() == 2
    refused = cli("sweep", "pause", sweep)
    assert refused.exit_code == 3
    assert "(illegal_sweep_move)" in refused.stderr


def test_failed_cells_run_again(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,4")
    cell_worker.fails = lambda spec: bool(spec["method"]["r"] == 2)
    cell_worker.work()
    cell_worker.fails = lambda _: False
    assert answer(cli("sweep", "retry", sweep, "--json"))["counts"]["queued"] == 1
    assert cell_worker.work() == 1
    assert answer(cli("sweep", "show", sweep, "--json"))["counts"]["succeeded"] == 2


def test_a_sweep_grows_by_values_and_by_cells(cli: Run, cell_worker: CellWorker) -> None:
    grid = started(cli, "--over", "r=2,4")
    grown = answer(cli("sweep", "extend", grid, "--over", "r=4,8", "--json"))
    assert (grown["cells"], grown["space"]["method.r"]) == (3, [2, 4, 8])
    drawn = started(cli, "--over", "r=1..32", "--strategy", "random", "--cells", "2")
    assert "4: " in cli("sweep", "extend", drawn, "--cells", "4").stdout
    for options, code, text in (
        ([], 2, "say what to add"),
        (["--over", "r"], 2, "(wrong_space)"),
        (["--over", "alpha=1"], 3, "(unknown_field)"),
        (["--over", "r=2"], 3, "(nothing_to_extend)"),
        (["--cells", "9"], 3, "(nothing_to_extend)"),
        (["--cells", "0"], 3, "(validation_failed)"),
    ):
        refused = cli("sweep", "extend", grid, *options)
        assert refused.exit_code == code, options
        assert text in refused.stderr


def test_only_a_sweep_that_does_not_run_is_deleted(cli: Run) -> None:
    sweep = started(cli, "--over", "r=2,4")
    refused = cli("sweep", "delete", sweep)
    assert refused.exit_code == 3
    assert "(sweep_not_finished)" in refused.stderr
    cli("sweep", "stop", sweep)
    assert cli("sweep", "delete", sweep).stdout == f"Deleted sweep {sweep}.\n"
    assert answer(cli("sweep", "list", "--json")) == []


@pytest.mark.parametrize("sweep", ["0198c0de-0000-7000-8000-000000000000", "../jobs"])
def test_an_unknown_sweep_is_refused(cli: Run, sweep: str) -> None:
    for command, *options in (
        *(["show"], ["cells"], ["watch"], ["pause"], ["stop"], ["resume"], ["retry"], ["delete"]),
        *(["results"], ["results", "--format", "json"], ["promote", "sentiment"]),
        ["extend", "--cells", "3"],
    ):
        result = cli("sweep", command, sweep, *options)
        assert result.exit_code == 3, command
        assert "(sweep_not_found)" in result.stderr or "(not_found)" in result.stderr
        assert result.stdout == ""
