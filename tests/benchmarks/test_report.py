"""What is kept goes on, and what is told has the names that it must have."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kept import Kept, choose
from benchmarks.train import report
from benchmarks.train.__main__ import main
from benchmarks.train.plan import CELLS

METHOD_KEYS = {
    "reviews_per_s", "vs_default", "vs_tuned", "accuracy", "accuracy_tuned", "accuracy_diff_low",
    "peak_mb", "peak_mb_tuned",
}  # fmt: skip
TOP_KEYS = {
    "lora_qv", "lora_all", "full", "baseline", "harness_vs_script", "gemm_peak_gflops",
    "share_of_peak", "share_of_parts", "processor", "versions",
}  # fmt: skip
RATIOS = [0.5, 0.97, 1.2, 0.95, 0.96]  # of the pairs
RATES = {"default": 2.0, "tuned": 10.0, "ours": 20.0}


def invented(cell: str) -> dict[str, Any]:
    """Figures of a cell that nobody measured."""
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
def results(tmp_path: Path) -> Kept:
    made = choose(tmp_path, quick=True, fresh=False)
    for cell in CELLS:
        made.keep(cell, invented(cell), seconds=1.0)
    return made


def test_the_names_are_those_that_were_asked_for(results: Kept) -> None:
    told = report.summary(results)
    assert told.keys() == TOP_KEYS
    for name in ("lora_qv", "lora_all", "full"):
        assert told[name].keys() == METHOD_KEYS
    assert told["baseline"].keys() == METHOD_KEYS | {"second_job_vs_tuned"}


def test_ratios_and_shares(results: Kept) -> None:
    told = report.summary(results)
    assert told["harness_vs_script"] == 0.96  # the median
    assert (told["full"]["vs_default"], told["full"]["vs_tuned"]) == (10.0, 2.0)
    assert told["baseline"]["second_job_vs_tuned"] == 40.0
    assert told["share_of_peak"] == pytest.approx(20.0 * 15.0 / 1000.0)
    assert (told["full"]["accuracy"], told["full"]["accuracy_tuned"]) == (0.75, 0.5)
    assert "lora_qv" in report.table(told)


def test_the_interval_is_that_of_paired_proportions() -> None:
    b, c, both, n = 300, 250, 4200, 5000  # ours alone right, the rival alone, both
    right = np.repeat([1.0, 0.0, 1.0, 0.0], [b, c, both, n - b - c - both])
    rival = np.repeat([0.0, 1.0, 1.0, 0.0], [b, c, both, n - b - c - both])
    error = np.sqrt(b + c - (b - c) ** 2 / n) / n  # the textbook form
    assert report.lower_end(right, rival) == pytest.approx((b - c) / n - 1.959964 * error)


def test_a_picture_is_drawn(results: Kept, tmp_path: Path) -> None:
    report.draw(results, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("ratio", "fails"), [(0.929, True), (0.931, False)])
def test_a_run_fails_if_the_harness_slows_the_rival_down(
    ratio: float,
    fails: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = choose(tmp_path, quick=False, fresh=False)
    for cell in CELLS:
        figures = {"harness_vs_script": ratio} if cell.startswith("pair-") else invented(cell)
        made.keep(cell, figures, seconds=1.0)
    monkeypatch.setattr("sys.argv", ["benchmarks.train", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"0\.929.*plain script") if fails else nullcontext():
        main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["harness_vs_script"] == ratio


def test_a_stopped_run_goes_on_and_a_fresh_one_begins_anew(tmp_path: Path) -> None:
    first = choose(tmp_path, quick=False, fresh=False)
    first.keep("peak", {"gflops": 1.0}, seconds=2.0)
    assert choose(tmp_path, quick=False, fresh=False).figures("peak") == {"gflops": 1.0}
    assert choose(tmp_path, quick=True, fresh=False).cells == {}
    assert choose(tmp_path, quick=False, fresh=True).cells == {}
