"""The benchmark of the loop: its cells on a few texts, and what its report makes of them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks import child_process
from benchmarks.loop import __main__ as loop
from benchmarks.loop import plan, report, sets, suspects
from benchmarks.loop.plan import Cell
from benchmarks.results_file import ResultsFile
from lora_core.data.file_inspection import FileContents
from lora_core.data.rows import TextRow
from lora_core.specs.encoded_labels import decode_label_set
from tests.slow import slow_but


def project(ours: list[float], random: list[float], budget: int = 50) -> dict[str, Any]:
    return {
        "budget": budget,
        "step": 10,
        "ours": {"scores": ours, "so_far": [[50, 0.7, 0.6, 0.8, 0.75]]},
        "random": {"scores": random},
    }


def test_labels_are_counted_where_smooth_curves_meet() -> None:
    rising = [0.1 * i for i in range(1, 8)]
    found = report.labels_to_target([project([2 * each for each in rising], rising)])
    assert found["target"] == pytest.approx(0.5)
    assert (found["labels"], found["ratio"], found["reached"]) == (30, 0.6, True)
    assert (found["low"], found["high"]) == (0.6, 0.6)  # of one project
    same = report.labels_to_target([project(rising, rising)])
    assert (same["ratio"], same["ours_at_budget"]) == (1.0, same["target"])


def test_target_that_is_not_reached_counts_as_all_labels() -> None:
    found = report.labels_to_target([project([0.1] * 7, [0.5] * 7)])
    assert (found["reached"], found["ratio"]) == (False, 1.4)


def test_one_lucky_score_does_not_reach_the_target() -> None:
    lucky = [0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9]
    assert report.labels_to_target([project(lucky, [0.5] * 11)])["labels"] > 50


def test_summary_of_made_up_cells(tmp_path: Path) -> None:
    cells = [
        Cell("labels", "rotten-tomatoes", 0),
        Cell("live", "rotten-tomatoes"),
        Cell("suspects", "questions"),
        Cell("drift", "questions"),
        Cell("curve", "questions"),
        Cell("promote", "questions"),
        Cell("service", "rotten-tomatoes"),
    ]
    live = {"coverage": 0.95, "powered_width": 0.8, "useless_width": 1.0}
    made_up: list[dict[str, Any]] = [
        project([0.5] * 7, [0.5] * 7),
        live,
        {"precision": 0.6},
        {"weeks": 100, "false_alarms": 4, "texts_to_alarm": [50, 100, None]},
        {"points": [[500, 0.8, 0.7, 0.9, 0.82], [500, 0.8, 0.79, 0.81, 0.84]]},
        {"retrainings": 50, "promoted_wrong": 2},
        {"next_ms_p50": 20.0, "suggest_s": 1.5},
    ]
    results = ResultsFile(tmp_path / "loop.jsonl")
    empty = report.summary(cells, results)
    assert empty["labels_to_target_ratio"] is empty["promote_wrong"] is None
    for cell, metrics in zip(cells, made_up, strict=True):
        results.add(cell.name, metrics, 1.0)
    found = report.summary(cells, results)
    assert found["labels_to_target_ratio"] == 0.2
    assert found["live_accuracy_coverage"] == 0.95
    assert found["ppi_width_ratio"] == {"informative": 0.8, "useless": 1.0}
    assert found["suspect_precision_at_50"] == 0.6
    assert found["drift_false_alarm_rate"] == 0.04
    assert found["drift_texts_to_alarm"] == {"questions": 100}
    assert found["learning_curve_error"] == pytest.approx(3)
    assert found["learning_curve_held"] == 0.5
    assert found["promote_wrong"] == 0.04
    assert found["so_far_coverage"] == 1
    assert (found["next_ms_p50"], found["suggest_s"]) == (20.0, 1.5)
    assert "rotten-tomatoes" in report.table(cells, results)


def test_names_of_cells_are_found() -> None:
    for quick in (False, True):
        for choose in (False, True):
            for cell in plan.cells(quick=quick, choose=choose):
                assert plan.find(cell.name, quick=quick) == cell
    with pytest.raises(SystemExit, match="no cell labels/imdb"):
        plan.find("labels/imdb")


def test_run_keeps_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def measure(_: str, name: str, *, quick: bool) -> dict[str, Any]:
        measured.append(name)
        settings = loop.settings(plan.find(name, quick=quick), quick=quick)
        return {"settings": settings, "points": []}

    def run(*words: str) -> list[str]:
        loop.main(["--quick", "--results", str(tmp_path), "--only", "curve/", *words])
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr(child_process, "measure", measure)
    cells = ["curve/rotten-tomatoes", "curve/multilabel"]
    # A cell from before settings were stored is stale.
    ResultsFile(tmp_path / "quick-loop.jsonl").add(cells[0], {"points": []}, 1.0)
    assert any(line.startswith(f"{cells[0]}: stale, from ") for line in run())
    run()
    run("--fresh")
    assert measured == cells * 2
    monkeypatch.setattr(plan, "LEVEL", 0.01)
    assert "1 of 13 cells are stale: computed by other settings or code" in run("--only", cells[1])
    assert json.loads(run()[-1])["learning_curve_error"] is None
    assert measured[4:] == [cells[1], cells[0]]


CELLS = [cell for cell in plan.cells(quick=True) if cell.what != "service"]


@pytest.mark.parametrize(
    "cell",
    slow_but(CELLS, *(cell for cell in CELLS if cell.what == "curve")),  # others need vectors
    ids=lambda cell: cell.name,
)
def test_cell_on_a_few_texts(cell: Cell) -> None:
    found = loop.run(cell, quick=True)
    match cell.what:
        case "labels":
            assert len(found["ours"]["scores"]) == 4
            assert 0.1 < found["random"]["scores"][3] <= 1
        case "live":
            assert 0 <= found["coverage"] <= 1
        case "suspects":
            assert found["flipped"] > 0
        case "drift":
            assert (found["weeks"], len(found["texts_to_alarm"])) == (2, 1)
        case "unfamiliar":
            for vectors in ("linear", "base"):
                assert found[vectors]["unfamiliar"].keys() == {cell.data, "multilabel"}
                assert 0 <= found[vectors]["auc"]["multilabel"] <= 1
        case "promote":
            assert found["promoted_wrong"] <= found["retrainings"] == 10
        case "curve":
            assert found["points"] == []


@pytest.mark.parametrize("name", plan.QUICK_SETS)
def test_suspects_are_those_of_the_service(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sets.load(name, quick=True)

    def differences(given: TextRow, truth: TextRow) -> tuple[str, ...]:
        both = (set(decode_label_set(row.label)) for row in (given, truth))
        return tuple(next(both) ^ next(both)) if data.task == "multi_label" else ()

    def oracle(contents: FileContents) -> SimpleNamespace:
        assert contents.columns.label_format.task == data.task
        listed = [
            SimpleNamespace(
                row=given.number,
                label=given.label,
                proposed=truth.label,
                names=differences(given, truth),
            )
            for given, truth in zip(contents.rows, data.texts.pool, strict=False)
            if given.label != truth.label
        ]
        return SimpleNamespace(found=len(listed), suspects=listed)

    monkeypatch.setattr(suspects, "find_suspect_rows", oracle)
    found = suspects.run(Cell("suspects", name), quick=True)
    assert (found["precision"], found["recall"], found["right_proposals"]) == (1, 1, 1)
    assert 0 < found["suspects"] <= found["flipped"]


def test_score_of_sets_is_macro_f1() -> None:
    data = sets.load("multilabel", quick=True)
    shifted = [*data.test_labels[1:], data.test_labels[0]]
    columns = [data.multi_hot(each) for each in (data.test_labels, shifted)]
    expected = f1_score(*columns, average="macro", zero_division=0.0)
    assert sets.score(data.test_labels, shifted) == pytest.approx(expected)


@pytest.mark.slow  # computes vectors
def test_pool_and_test_share_no_text() -> None:
    for name in plan.QUICK_SETS:
        data = sets.load(name, quick=True)
        assert not {row.text for row in data.texts.pool} & {row.text for row in data.texts.test}
        assert np.linalg.norm(data.vectors, axis=1) == pytest.approx(1, abs=1e-5)
