"""A stopped run continues, changed settings are recomputed, and tables show stored results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import child_process
from benchmarks.accuracy import answers, changes, contenders
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.contenders import FULL, few
from benchmarks.results_file import ResultsFile

DATA = "rotten-tomatoes-2000"
TABLE, TRIES = contenders.cells(few(FULL)), changes.cells([], few(changes.DATA))
CELLS = {cell.name: cell for cell in (*TABLE, *TRIES)}
RIGHT = {"lora": "1110", "full": "1100", "linear": "1001", "seed": "0000", "plain": "0111"}

Report = dict[str, Any]
Run = Callable[..., Report]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cells that were computed, with made-up results."""
    names: list[str] = []

    def measure(_: str, name: str, *, quick: bool) -> Report:
        names.append(name)
        cell = CELLS[name]
        correct = RIGHT.get(cell.contender, "1010")
        return {"settings": answers.settings(cell), "data": "same", "correct": correct}

    monkeypatch.setattr(child_process, "measure", measure)
    return names


@pytest.fixture
def printed() -> list[str]:
    """The lines of the last run."""
    return []


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], printed: list[str]) -> Run:
    """A run on one of the datasets; returns its last line of output."""

    def run(*words: str) -> Report:
        main(["--quick", "--results", str(tmp_path), "--data", DATA, *words])
        printed[:] = capsys.readouterr().out.splitlines()
        report: Report = json.loads(printed[-1])
        return report

    return run


def test_stopped_run_continues(computed: list[str], run: Run) -> None:
    run("--only", "/lora/")
    assert computed == [f"{DATA}/lora/{seed}" for seed in (0, 1, 2)]
    run()
    assert len(computed) == len(set(computed)) == 13
    run()
    assert len(computed) == 13


def test_fresh_recomputes_the_selected_cells(computed: list[str], run: Run) -> None:
    run()
    computed.clear()
    run("--fresh", "--only", "plain")
    assert computed == [f"{DATA}/plain/{seed}" for seed in (0, 1, 2)]


def test_changed_settings_are_recomputed(
    computed: list[str],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    printed: list[str],
) -> None:
    run()
    computed.clear()
    settings = answers.settings
    monkeypatch.setattr(
        answers, "settings", lambda cell: settings(cell) + "!" * (cell.contender == "full")
    )
    # results of outdated settings are left out
    assert "full" not in run("--only", "linear")[DATA]
    assert "3 of 13 cells are stale: computed by other settings or code" in printed
    assert "full" in run()[DATA]
    assert computed == [f"{DATA}/full/{seed}" for seed in (0, 1, 2)]
    assert (
        ResultsFile(tmp_path / "quick-accuracy.jsonl").metrics(f"{DATA}/full/0")["settings"][-1]
        == "!"
    )


def test_concurrent_runs_keep_each_others_results(
    computed: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, file = child_process.measure, tmp_path / "quick-accuracy.jsonl"

    def measure_concurrently(module: str, name: str, *, quick: bool) -> Report:
        ResultsFile(file).add("of another run", {}, seconds=1.0)
        return measure(module, name, quick=quick)

    monkeypatch.setattr(child_process, "measure", measure_concurrently)
    run("--only", "linear")
    assert ResultsFile(file).cells.keys() == {"of another run", f"{DATA}/linear"}


def test_accuracies_and_paired_differences(computed: list[str], run: Run) -> None:
    assert run("--only", "/0")[DATA] == {}  # the other seeds are missing
    report = run()
    reported = report[DATA]
    assert report.keys() == {DATA, "processor", "dates", "commits", "versions"}
    assert (reported["lora"], reported["lora_se"], reported["linear"]) == (0.75, 0.0, 0.5)
    assert reported["lora_minus_linear"] == reported["lora_minus_full"] == 0.25
    assert reported["seed_minus_linear"] == -0.5
    # +1 +1 0 -1 … by hand: 0, 1, 1, -1 less their mean 0.25; t with 3 degrees of freedom
    error = ((0.25**2 + 0.75**2 + 0.75**2 + 1.25**2) / 3 / 4) ** 0.5
    assert reported["lora_minus_linear_low"] == pytest.approx(0.25 - 3.1824 * error, abs=1e-3)


def test_gain_over_the_defaults(computed: list[str], run: Run, tmp_path: Path) -> None:
    report = run("--try", "epochs-1", "--only", "/1")
    assert computed == [f"{DATA}/defaults/1", f"{DATA}/epochs-1/1"]
    assert report[DATA]["epochs-1"] == {"seeds": 1, "accuracy": 0.5, "gain": 0.0, "gain_se": 0.0}
    assert not (tmp_path / "quick-accuracy.jsonl").exists()
    assert run("--try", "epochs-1")[DATA]["defaults"]["seeds"] == 3


def test_unknown_cell_is_refused(run: Run) -> None:
    with pytest.raises(SystemExit, match="no cell imdb/lora"):
        run("--cell", "imdb/lora")
