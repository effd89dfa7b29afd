"""The training benchmark: summary and resumed runs."""

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine
from benchmarks.results_file import ResultsFile, choose
from benchmarks.spread import Spread, bits
from benchmarks.train import report
from benchmarks.train.__main__ import main
from benchmarks.train.plan import CELLS

RATIOS = [0.5, 0.97, 1.2, 0.95, 0.96]  # of the pairs
RATES = {"default": 2.0, "tuned": 10.0, "ours": 20.0}


def example_metrics(cell: str) -> dict[str, Any]:
    """Made-up metrics of a cell."""
    kind, _, rest = cell.partition("-")
    name, _, side = rest.partition("-")
    match kind:
        case "peak":
            return {"gflops": 1000.0, "threads": 2}
        case "pair":
            return {"harness_vs_script": RATIOS[int(name) - 1]}
        case "parts":
            return {"share": 0.8}
        case "accuracy":
            correct = ["1101", "1101"] if side == "ours" else ["1001", "1010"]
            return {"correct": correct, "data": "same", "peak_mb": 900.0}
    second = {"second_reviews_per_s": 400.0} if name == "baseline" else {}
    rate = {"reviews_per_s": RATES[side], "needed_gflop_per_review": 15.0, "peak_mb": 1000.0}
    return rate | second


@pytest.fixture
def results(tmp_path: Path) -> ResultsFile:
    made = choose(tmp_path, quick=True, fresh=False)
    for cell in CELLS:
        made.add(cell, example_metrics(cell), seconds=1.0)
    return made


def test_ratios_and_shares(results: ResultsFile) -> None:
    summary = report.summary(results)
    assert summary["harness_vs_script"] == 0.96  # the median
    assert (summary["full"]["vs_default"], summary["full"]["vs_tuned"]) == (10.0, 2.0)
    assert summary["baseline"]["second_job_vs_tuned"] == 40.0
    assert summary["share_of_peak"] == pytest.approx(20.0 * 15.0 / 1000.0)
    assert (summary["full"]["accuracy"], summary["full"]["accuracy_tuned"]) == (0.75, 0.5)
    assert "lora_qv" in report.table(summary)


@pytest.mark.parametrize(("ratio", "fails"), [(0.929, True), (0.931, False)])
def test_run_fails_if_the_harness_slows_the_competitor(
    ratio: float,
    fails: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = choose(tmp_path, quick=False, fresh=False)
    for cell in CELLS:
        metrics = (
            {"harness_vs_script": ratio} if cell.startswith("pair-") else example_metrics(cell)
        )
        made.add(cell, metrics, seconds=1.0)
    monkeypatch.setattr("sys.argv", ["benchmarks.train", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"0\.929.*plain script") if fails else nullcontext():
        main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["harness_vs_script"] == ratio


def test_difference_of_accuracies_has_the_error_of_seeds_and_texts(results: ResultsFile) -> None:
    tuned = ["1111", "0000"]
    results.metrics("accuracy-full-tuned")["correct"] = tuned
    spread = Spread(bits(["1101", "1101"]) - bits(tuned))
    assert spread.over_seeds > 0
    low = report.summary(results)["full"]["accuracy_diff_low"]
    assert low == pytest.approx(spread.interval()[0], abs=1e-4)


def test_summary_names_all_code_that_it_was_measured_with(results: ResultsFile) -> None:
    head = machine.commit()
    assert report.summary(results)["commits"] == [head]
    assert re.fullmatch(r"[0-9a-f]{40}\+?|unknown", head)
    results.cells["parts"] |= {"commit": "0123", "date": "2026-01-02T00:00:00+00:00"}
    del results.cells["peak"]["commit"]  # measured before commits were stored
    summary = report.summary(results)
    assert summary["commits"] == sorted(["0123", head, "unknown"])
    assert summary["dates"][0] == "2026-01-02"
    assert f"commits: {summary['commits']}" in report.table(summary)


def test_stopped_run_continues_and_fresh_run_starts_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = choose(tmp_path, quick=False, fresh=False)
    first.add("peak", {"gflops": 1.0}, seconds=2.0)
    again = choose(tmp_path, quick=False, fresh=False)
    assert again.metrics("peak") == {"gflops": 1.0}
    again.ensure("peak", dict)
    commit = machine.commit()
    changed = "+" * commit.endswith("+")
    assert f", commit {commit[:8]}{changed})" in capsys.readouterr().out
    assert choose(tmp_path, quick=True, fresh=False).cells == {}
    assert choose(tmp_path, quick=False, fresh=True).cells == {}
