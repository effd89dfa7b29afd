"""Following a sweep."""

import json
from collections.abc import Callable

import pytest

from app.cli import polling, sweep_results
from app.cli.client import Client
from app.cli.errors import ServiceUnreachableOrFailed
from app.sweeps.schemas import SweepView
from tests.app.cli.conftest import Run, SweepJobWorker, answer


@pytest.fixture(autouse=True)
def _worked_between(monkeypatch: pytest.MonkeyPatch, sweep_job_worker: SweepJobWorker) -> None:
    """Finish one trial between two polls."""
    monkeypatch.setattr(polling, "sleep", lambda _: sweep_job_worker.run_jobs(1))


def started(cli: Run, *options: str) -> str:
    return str(answer(cli("sweep", "start", *options, "--json"))["id"])


def test_watch_prints_the_leader_and_the_winner(cli: Run) -> None:
    sweep = started(cli, "--over", "r=2,4,8", "--name", "ranks")
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 0
    assert "trial 1 (r = 2) leads with validation accuracy 82.0%" in result.stderr
    assert "trial 3 (r = 8) leads with validation accuracy 88.0%" in result.stderr
    assert "ranks (grid): finished, 3: 3 succeeded" in result.stderr
    assert "winner" in result.stdout
    assert "leads" not in result.stdout


def test_json_prints_one_line_per_change(
    cli: Run, sweep_job_worker: SweepJobWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([0, 1, 0, 0, 1, 1])
    monkeypatch.setattr(polling, "sleep", lambda _: sweep_job_worker.run_jobs(next(turns)))
    sweep = started(cli, "--over", "r=2,4,8")
    result = cli("sweep", "watch", sweep, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [line["trial_counts"]["succeeded"] for line in lines] == [0, 1, 2, 3]
    assert [line["state"] for line in lines] == ["running"] * 3 + ["finished"]


@pytest.mark.parametrize("order", ["pause", "stop"])
def test_pause_or_stop_ends_watching_with_1(cli: Run, order: str) -> None:
    sweep = started(cli, "--over", "r=2,4")
    state = answer(cli("sweep", order, sweep, "--json"))["state"]
    for options in ([], ["--json"]):
        result = cli("sweep", "watch", sweep, *options)
        assert result.exit_code == 1
        assert f"sweep {sweep} was {state} before it finished (sweep_{state})" in result.stderr


def test_sweep_without_winner_exits_with_1(cli: Run, sweep_job_worker: SweepJobWorker) -> None:
    sweep = started(cli, "--over", "r=2,4")
    sweep_job_worker.should_fail = lambda _: True
    sweep_job_worker.run_jobs()
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 1
    assert "(no_winner)" in result.stderr
    assert "2: 2 failed" in result.stdout


def test_ctrl_c_keeps_the_sweep_running(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(fetch: Callable[[], object], *, interval: float) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_results, "poll_forever", interrupted)
    sweep = started(cli, "--over", "r=2,4")
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 130
    assert f"The sweep continues. Follow it with `loraworks sweep watch {sweep}`" in result.stderr
    assert answer(cli("sweep", "show", sweep, "--json"))["state"] == "running"


def test_short_outage_is_waited_out(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = started(cli, "--over", "r=2,4")
    look, away = Client.get_sweep, iter([False, True, True, False, True, False])

    def sometimes(client: Client, sweep_id: str) -> SweepView:
        if next(away):
            raise ServiceUnreachableOrFailed("gone", "unreachable")
        return look(client, sweep_id)

    monkeypatch.setattr(Client, "get_sweep", sometimes)
    watched = cli("sweep", "watch", sweep)
    assert watched.exit_code == 0
    warnings = watched.stderr.count("gone; trying again for up to 60 s")
    assert warnings in (1, 2)  # one for each outage that was seen, not for each try


def test_long_outage_ends_watching(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 40))
    monkeypatch.setattr(polling, "monotonic", lambda: next(seconds))
    polls: list[str] = []

    def away(client: Client, sweep_id: str) -> None:
        polls.append(sweep_id)
        raise ServiceUnreachableOrFailed("gone", "unreachable")

    sweep = started(cli, "--over", "r=2,4")
    monkeypatch.setattr(Client, "get_sweep", away)
    result = cli("sweep", "watch", sweep)
    assert result.exit_code == 4
    assert "The sweep continues" in result.stderr
    assert polls == [sweep] * 2  # 40 seconds after the last word, and 80
