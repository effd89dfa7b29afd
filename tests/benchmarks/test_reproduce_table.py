"""The table tells means and errors, and the lessons' table stands beside the newest of ours."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks.kept import DIRECTORY, Kept
from benchmarks.reproduce import plan
from benchmarks.reproduce.plan import HUB, LINEAR, PART, ROWS, SHARE, SIZES, Size
from benchmarks.reproduce.table import beside, beside_lessons, of_size, summary, table
from tests.notebooks import course

REPOSITORY = Path(__file__).parents[2]
START, END = "<!-- made by `UPDATE_DOCS=1 pytest tests/benchmarks` -->\n\n", "\n\n<!-- end -->"
CORRECT = ("1110", "1100", "1011")  # of three seeds


def invented(cell: plan.Cell) -> dict[str, Any]:
    """Figures of a cell that nobody measured."""
    correct = CORRECT[cell.seed or 0]
    right = {"train": 0.9, "validation": 0.8, "test": correct.count("1") / 4}
    more = {} if cell.row == LINEAR else {"parameters": 1234}
    return {"data": "same", "correct": correct, "train_seconds": 10.0, **right, **more}


def kept(folder: Path, size: Size, seeds: int, day: int = 1) -> Kept:
    """A file of that day with every cell of a size."""
    results = Kept(folder / f"reproduce-some-2026-01-{day:02}.jsonl")
    for cell in plan.cells(size, seeds):
        results.keep(cell.name, invented(cell), seconds=1.0)
    for record in results.cells.values():
        record["date"] = f"2026-01-{day:02}T00:00:00+00:00"
    results.forget([])  # writes the dates
    return results


def test_means_and_both_errors_are_told(tmp_path: Path) -> None:
    results = kept(tmp_path, PART, seeds=3)
    told = summary(of_size(results, PART), results)
    assert list(told) == list(ROWS)
    lora = told["lora"]
    assert (lora["test"], lora["seeds"], lora["parameters"]) == (round(2 / 3, 4), 3, 1234)
    # by hand: 0.75, 0.5, 0.75 over seeds; 1, 2/3, 2/3, 1/3 over texts
    over_seeds = ((2 * (1 / 12) ** 2 + (1 / 6) ** 2) / 2 / 3) ** 0.5
    over_texts = (2 * (1 / 3) ** 2 / 3 / 4) ** 0.5
    assert lora["test_seeds_se"] == pytest.approx(over_seeds, abs=1e-4)
    assert lora["test_texts_se"] == pytest.approx(over_texts, abs=1e-4)
    assert lora["test_se"] == pytest.approx((over_seeds**2 + over_texts**2) ** 0.5, abs=1e-4)


def test_of_one_seed_the_error_is_that_of_a_share(tmp_path: Path) -> None:
    results = kept(tmp_path, PART, seeds=1)
    lora = summary(of_size(results, PART), results)["lora"]
    assert lora["test_seeds_se"] is None
    assert lora["test_se"] == pytest.approx((0.75 * 0.25 / 3) ** 0.5, abs=1e-4)


def test_the_linear_rival_comes_first_and_has_no_seed(tmp_path: Path) -> None:
    results = kept(tmp_path, PART, seeds=2)
    lines = table(summary(of_size(results, PART), results)).splitlines()
    assert lines[1].split() == [
        *["linear", "rival", "(bag", "of", "words)"],
        *("90.0", "80.0", "75.0", "25.0", "10", "88.85"),
    ]
    assert lines[-1].split()[:2] == ["our", "defaults"]
    assert len(lines) == 1 + len(ROWS)


def test_other_texts_are_no_comparison(tmp_path: Path) -> None:
    results = kept(tmp_path, PART, seeds=1)
    results.figures("sample-4000/full/0")["data"] = "other"
    with pytest.raises(AssertionError, match="other texts"):
        summary(of_size(results, PART), results)


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    told = beside_lessons(tmp_path)
    assert told.count("not measured yet") == len(ROWS)
    assert "| all layers | 66,955,010 | 96.41 | 92.80 | 92.31 |  |  |  | not measured yet |" in told
    results = kept(tmp_path, PART, seeds=1)
    results.forget(["sample-4000/full/0"])
    told = beside_lessons(tmp_path)
    assert told.count("not measured yet") == 1
    assert "89.44 | 1,234 | 90.0 | 80.0 | 75.0 ± 25.0 |" in told


def test_the_largest_size_that_is_whole_is_shown_and_of_it_the_newest(tmp_path: Path) -> None:
    kept(tmp_path, PART, seeds=3, day=9)
    old = kept(tmp_path, SHARE, seeds=1, day=2)
    kept(tmp_path, SHARE, seeds=2, day=3)
    assert "20,000/2,500/2,500" in beside_lessons(tmp_path)
    assert "seeds: 2;" in beside_lessons(tmp_path)
    assert beside_lessons(tmp_path).endswith("2026-01-03.")
    old.keep(f"{HUB.name}/full/0", {}, seconds=1.0)  # a beginning
    assert "seeds: 2;" in beside_lessons(tmp_path)


@pytest.mark.parametrize("name", ["docs/explanation/reproduced.md", "README.md"])
def test_the_table_of_a_document_is_one_that_is_kept(name: str) -> None:
    document = REPOSITORY / name
    before, start, rest = document.read_text(encoding="utf-8").partition(START)
    told, end, after = rest.partition(END)
    assert end, f"{name} has no place for the table"
    if os.environ.get("UPDATE_DOCS") == "1":
        told = beside_lessons()
        document.write_text(before + start + told + end + after, encoding="utf-8")
    assert told in kept_tables()


@pytest.mark.parametrize("path", course.PATHS, ids=lambda path: path.stem)
def test_the_table_of_a_notebook_is_one_that_is_kept(path: Path) -> None:
    notebook = course.read(path)
    cell = course.code_cells(notebook)[-1]
    assert "beside_lessons()" in cell.source
    if os.environ.get("UPDATE_DOCS") == "1":  # what the cell makes of the results that are kept
        for output in cell.outputs:
            output.data["text/markdown"] = beside_lessons()
        nbformat.write(notebook, path)
    [shown] = cell.outputs
    assert shown.data["text/markdown"] in kept_tables()


def kept_tables() -> set[str]:
    """Whoever measures on a machine of their own has one more."""
    files = [Kept(path) for path in DIRECTORY.glob("reproduce-*.jsonl")]
    return {beside(results, size) for results in files for size in SIZES}
