"""A stopped run goes on, changed settings are computed anew, and the tables say what was kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import apart
from benchmarks.accuracy import answers, changes, contenders
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.contenders import FULL, few
from benchmarks.kept import Kept

DATA = "rotten-tomatoes-2000"
TABLE, TRIES = contenders.cells(few(FULL)), changes.cells([], few(changes.DATA))
CELLS = {cell.name: cell for cell in (*TABLE, *TRIES)}
RIGHT = {"lora": "1110", "full": "1100", "linear": "1001", "seed": "0000", "plain": "0111"}

Told = dict[str, Any]
Run = Callable[..., Told]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that a process was started for; their figures are invented."""
    names: list[str] = []

    def measure(_: str, name: str, *, quick: bool) -> Told:
        names.append(name)
        cell = CELLS[name]
        correct = RIGHT.get(cell.contender, "1010")
        return {"settings": answers.settings(cell), "data": "same", "correct": correct}

    monkeypatch.setattr(apart, "measure", measure)
    return names


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A run on one of the data sets; what it tells last."""

    def run(*words: str) -> Told:
        main(["--quick", "--results", str(tmp_path), "--data", DATA, *words])
        told: Told = json.loads(capsys.readouterr().out.splitlines()[-1])
        return told

    return run


def test_a_stopped_run_goes_on(computed: list[str], run: Run) -> None:
    run("--only", "/lora/")
    assert computed == [f"{DATA}/lora/{seed}" for seed in (0, 1, 2)]
    run()
    assert len(computed) == len(set(computed)) == 13
    run()
    assert len(computed) == 13


def test_fresh_computes_again_what_is_chosen(computed: list[str], run: Run) -> None:
    run()
    computed.clear()
    run("--fresh", "--only", "plain")
    assert computed == [f"{DATA}/plain/{seed}" for seed in (0, 1, 2)]


def test_changed_settings_are_computed_anew(
    computed: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    computed.clear()
    settings = answers.settings
    monkeypatch.setattr(
        answers, "settings", lambda cell: settings(cell) + "!" * (cell.contender == "full")
    )
    # what is told leaves out the figures of yesterday's settings
    assert "full" not in run("--only", "linear")[DATA]
    assert "full" in run()[DATA]
    assert computed == [f"{DATA}/full/{seed}" for seed in (0, 1, 2)]
    assert Kept(tmp_path / "quick-accuracy.jsonl").figures(f"{DATA}/full/0")["settings"][-1] == "!"


def test_two_runs_at_once_lose_nothing(
    computed: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, file = apart.measure, tmp_path / "quick-accuracy.jsonl"

    def meanwhile(module: str, name: str, *, quick: bool) -> Told:
        Kept(file).keep("of another run", {}, seconds=1.0)
        return measure(module, name, quick=quick)

    monkeypatch.setattr(apart, "measure", meanwhile)
    run("--only", "linear")
    assert Kept(file).cells.keys() == {"of another run", f"{DATA}/linear"}


def test_accuracies_and_paired_differences_are_told(computed: list[str], run: Run) -> None:
    assert run("--only", "/0")[DATA] == {}  # the other seeds are still to come
    all_told = run()
    told = all_told[DATA]
    assert all_told.keys() == {DATA, "processor", "versions"}
    assert (told["lora"], told["lora_se"], told["linear"]) == (0.75, 0.0, 0.5)
    assert told["lora_minus_linear"] == told["lora_minus_full"] == 0.25
    assert told["seed_minus_linear"] == -0.5
    # +1 +1 0 -1 … by hand: 0, 1, 1, -1 less their mean 0.25; t with 3 degrees of freedom
    error = ((0.25**2 + 0.75**2 + 0.75**2 + 1.25**2) / 3 / 4) ** 0.5
    assert told["lora_minus_linear_low"] == pytest.approx(0.25 - 3.1824 * error, abs=1e-3)


def test_a_gain_is_told_beside_the_defaults(computed: list[str], run: Run, tmp_path: Path) -> None:
    told = run("--try", "epochs-1", "--only", "/1")
    assert computed == [f"{DATA}/defaults/1", f"{DATA}/epochs-1/1"]
    assert told[DATA]["epochs-1"] == {"seeds": 1, "accuracy": 0.5, "gain": 0.0, "gain_se": 0.0}
    assert not (tmp_path / "quick-accuracy.jsonl").exists()
    assert run("--try", "epochs-1")[DATA]["defaults"]["seeds"] == 3


def test_an_unknown_cell_is_refused(run: Run) -> None:
    with pytest.raises(SystemExit, match="no cell imdb/lora"):
        run("--cell", "imdb/lora")


def test_data_that_this_table_lacks_is_refused(run: Run) -> None:
    with pytest.raises(SystemExit, match=r"no cells of imdb-8000 here, but of .*imdb-2000"):
        run("--try", "epochs-1", "--data", "imdb-8000")


@pytest.mark.e2e
@pytest.mark.slow  # `test_answers` computes one here
def test_a_cell_is_computed_in_a_process_of_its_own(run: Run, tmp_path: Path) -> None:
    run("--try", "epochs-1", "--only", "epochs-1/0")
    figures = Kept(tmp_path / "quick-changes.jsonl").figures(f"{DATA}/epochs-1/0")
    assert (figures["judged_on"], figures["steps"]) == ("validation", 2)
    assert figures["accuracy"] == figures["correct"].count("1") / 16
