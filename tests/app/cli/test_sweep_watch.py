"""Following a sweep."""

import json
from collections.abc import Callable

import pytest

from app.cli import polling, sweep_watch
from app.cli.client import Client
from app.cli.errors import Unreachable
from app.cli.responses import Sweep
from tests.app.cli.conftest import CellWorker, Run, answer


@pytest.fixture(autouse=True)
def _worked_between(monkeypatch: pytest.MonkeyPatch, cell_worker: CellWorker) -> None:
    """One cell ends between two looks."""
    monkeypatch.setattr(polling, "sleep", lambda _: cell_worker.work(1))


def started(cli: Run, *options: str) -> str:
    return str(answer(cli("sweep", "start", *options, "--json"))["id"])


def test_it_tells_who_leads_and_ends_with_the_winner(cli: Run) -> None:
    sweep = started(cli, "--over", "r=2,4,8", "--name", "ranks")
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 0
    assert "cell 1 (r = 2) leads with validation accuracy 82.0 %" in result.stderr
    assert "cell 3 (r = 8) leads with validation accuracy 88.0 %" in result.stderr
    assert "ranks (grid): finished, 3: 3 succeeded" in result.stderr
    assert "winner" in result.stdout
    assert "leads" not in result.stdout


def test_every_change_is_one_line_of_json(
    cli: Run, cell_worker: CellWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([0, 1, 0, 0, 1, 1])
    monkeypatch.setattr(polling, "sleep", lambda _: cell_worker.work(next(turns)))
    sweep = started(cli, "--over", "r=2,4,8")
    result = cli("sweep", "watch", sweep, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [line["counts"]["succeeded"] for line in lines] == [0, 1, 2, 3]
    assert [line["state"] for line in lines] == ["running"] * 3 + ["finished"]


@pytest.mark.parametrize("order", ["pause", "stop"])
def test_it_ends_with_a_pause_or_a_stop_and_1(cli: Run, order: str) -> None:
    sweep = started(cli, "--over", "r=2,4")
    state = answer(cli("sweep", order, sweep, "--json"))["state"]
    for options in ([], ["--json"]):
        result = cli("sweep", "watch", sweep, *options)
        assert result.exit_code == 1
        assert f"sweep {sweep} was {state} before its end (sweep_{state})" in result.stderr


def test_a_sweep_without_a_winner_ends_with_1(cli: Run, cell_worker: CellWorker) -> None:
    sweep = started(cli, "--over", "r=2,4")
    cell_worker.fails = lambda _: True
    cell_worker.work()
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 1
    assert "(no_winner)" in result.stderr
    assert "2: 2 failed" in result.stdout


def test_ctrl_c_leaves_the_sweep_and_says_how_to_come_back(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(look: Callable[[], object], *, every: float) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_watch, "looks", interrupted)
    sweep = started(cli, "--over", "r=2,4")
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 130
    assert f"The sweep goes on: `loraworks sweep watch {sweep}`" in result.stderr
    assert answer(cli("sweep", "show", sweep, "--json"))["state"] == "running"


def test_a_service_that_comes_back_is_waited_for(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = started(cli, "--over", "r=2,4")
    look, away = Client.sweep, iter([False, True, True, False, True, False])

    def sometimes(client: Client, sweep_id: str) -> Sweep:
        if next(away):
            raise Unreachable("gone", "unreachable")
        return look(client, sweep_id)

    monkeypatch.setattr(Client, "sweep", sometimes)
    assert cli("sweep", "watch", sweep).exit_code == 0


def test_a_service_that_stays_away_ends_the_watching(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 40))
    monkeypatch.setattr(polling, "monotonic", lambda: next(seconds))
    looks: list[str] = []

    def away(client: Client, sweep_id: str) -> None:
        looks.append(sweep_id)
        raise Unreachable("gone", "unreachable")

    sweep = started(cli, "--over", "r=2,4")
    monkeypatch.setattr(Client, "sweep", away)
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 4
    assert "The sweep goes on" in result.stderr
    assert looks == [sweep] * 2  # 40 seconds after the last word, and 80
