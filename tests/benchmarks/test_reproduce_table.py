"""The table has means and standard errors, and is compared with that of the lessons."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks.reproduce import plan
from benchmarks.reproduce.plan import HUB, LINEAR, PART, ROWS, SHARE, SIZES, Size
from benchmarks.reproduce.table import comparison, lessons_comparison, of_size, summary
from benchmarks.results_file import DIRECTORY, ResultsFile
from tests.notebooks import course

REPOSITORY = Path(__file__).parents[2]
START, END = "<!-- made by `UPDATE_DOCS=1 pytest tests/benchmarks` -->\n\n", "\n\n<!-- end -->"
CORRECT = ("1110", "1100", "1011")  # of three seeds


def example_metrics(cell: plan.Cell) -> dict[str, Any]:
    """Made-up metrics of a cell."""
    correct = CORRECT[cell.seed or 0]
    right = {"train": 0.9, "validation": 0.8, "test": correct.count("1") / 4}
    trained = {"parameters": 1234, "settings": {"training_version": 7}}
    more = {} if cell.row == LINEAR else trained
    return {"data": "same", "correct": correct, "train_seconds": 10.0, **right, **more}


def kept(folder: Path, size: Size, seeds: int, day: int = 1) -> ResultsFile:
    """A result file of a day with every cell of a size."""
    results = ResultsFile(folder / f"reproduce-some-2026-01-{day:02}.jsonl")
    for cell in plan.cells(size, seeds):
        results.add(cell.name, example_metrics(cell), seconds=1.0)
    for record in results.cells.values():
        record["date"] = f"2026-01-{day:02}T00:00:00+00:00"
    results.remove([])  # writes the dates
    return results


def test_means_and_standard_errors(tmp_path: Path) -> None:
    results = kept(tmp_path, PART, seeds=3)
    report = summary(of_size(results, PART), results)
    assert list(report) == list(ROWS)
    lora = report["lora"]
    assert (lora["test"], lora["seeds"], lora["parameters"]) == (round(2 / 3, 4), 3, 1234)
    # by hand: 0.75, 0.5, 0.75 over seeds; 1, 2/3, 2/3, 1/3 over texts
    over_seeds = ((2 * (1 / 12) ** 2 + (1 / 6) ** 2) / 2 / 3) ** 0.5
    over_texts = (2 * (1 / 3) ** 2 / 3 / 4) ** 0.5
    assert lora["test_seeds_se"] == pytest.approx(over_seeds, abs=1e-4)
    assert lora["test_texts_se"] == pytest.approx(over_texts, abs=1e-4)
    assert lora["test_se"] == pytest.approx((over_seeds**2 + over_texts**2) ** 0.5, abs=1e-4)


def test_single_seed_has_the_binomial_standard_error(tmp_path: Path) -> None:
    results = kept(tmp_path, PART, seeds=1)
    lora = summary(of_size(results, PART), results)["lora"]
    assert lora["test_seeds_se"] is None
    assert lora["test_se"] == pytest.approx((0.75 * 0.25 / 3) ** 0.5, abs=1e-4)


def test_different_texts_are_not_compared(tmp_path: Path) -> None:
    results = kept(tmp_path, PART, seeds=1)
    results.metrics("sample-4000/full/0")["data"] = "other"
    with pytest.raises(AssertionError, match="other texts"):
        summary(of_size(results, PART), results)


def test_missing_rows_are_marked_as_not_measured(tmp_path: Path) -> None:
    comparison = lessons_comparison(tmp_path)
    assert comparison.count("not measured yet") == len(ROWS)
    assert (
        "| all layers | 66,955,010 | 96.41 | 92.80 | 92.31 |  |  |  | not measured yet |"
        in comparison
    )
    results = kept(tmp_path, PART, seeds=1)
    results.remove(["sample-4000/full/0"])
    comparison = lessons_comparison(tmp_path)
    assert comparison.count("not measured yet") == 1
    assert "89.44 | 1,234 | 90.0 | 80.0 | 75.0 ± 25.0 |" in comparison


def test_newest_complete_results_of_the_largest_size_are_shown(tmp_path: Path) -> None:
    kept(tmp_path, PART, seeds=3, day=9)
    old = kept(tmp_path, SHARE, seeds=1, day=2)
    kept(tmp_path, SHARE, seeds=2, day=3)
    assert "20,000/2,500/2,500" in lessons_comparison(tmp_path)
    assert "seeds: 2;" in lessons_comparison(tmp_path)
    assert "seeds: 2; training version 7; " in lessons_comparison(tmp_path)
    assert lessons_comparison(tmp_path).endswith("2026-01-03.")
    old.add(f"{HUB.name}/full/0", {}, seconds=1.0)  # incomplete
    assert "seeds: 2;" in lessons_comparison(tmp_path)


def test_table_of_a_document_matches_stored_results() -> None:
    document = REPOSITORY / "docs/explanation/reproduced.md"
    before, start, rest = document.read_text(encoding="utf-8").partition(START)
    table_text, end, after = rest.partition(END)
    assert end, f"{document} has no place for the table"
    if os.environ.get("UPDATE_DOCS") == "1":
        table_text = lessons_comparison()
        document.write_text(before + start + table_text + end + after, encoding="utf-8")
    assert table_text in kept_tables()


@pytest.mark.parametrize("path", course.PATHS, ids=lambda path: path.stem)
def test_table_of_a_notebook_matches_stored_results(path: Path) -> None:
    notebook = course.read(path)
    cell = course.code_cells(notebook)[-1]
    assert "lessons_comparison()" in cell.source
    if os.environ.get("UPDATE_DOCS") == "1":  # the output of the cell for the stored results
        for output in cell.outputs:
            output.data["text/markdown"] = lessons_comparison()
        nbformat.write(notebook, path)
    [shown] = cell.outputs
    assert shown.data["text/markdown"] in kept_tables()


def kept_tables() -> set[str]:
    """The tables of all stored result files. A local measurement adds one."""
    files = [ResultsFile(path) for path in DIRECTORY.glob("reproduce-*.jsonl")]
    return {comparison(results, size) for results in files for size in SIZES}
