"""The benchmark of tasks: its texts, its scores, and one quick cell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

import benchmarks.settings
from benchmarks.results_file import ResultsFile
from benchmarks.tasks import __main__ as tasks
from benchmarks.tasks import answers, linear, report, sets, speed
from benchmarks.tasks.plan import ACCURACY_CELLS, KINDS, QUICK, SEEDS, SPEED_PAIRS, Kind
from lora_core.specs.data import Split


@pytest.fixture
def results(tmp_path: Path) -> ResultsFile:
    """Ours is always right; the Trainer never is, and takes twice as long."""
    stored = ResultsFile(tmp_path / "cells.jsonl")
    for kind in KINDS:
        truth = answers.truth(kind, QUICK)
        for seed in SEEDS:
            for side, right in (("ours", True), ("trainer", False), ("linear", False)):
                metrics = {"answers": _answers(kind, truth, right=right), "train_seconds": 1.0}
                stored.add(f"{kind}-{side}-{seed}", metrics, 1.0)
    for encoder in ("modernbert", "deberta-v2"):
        for number in range(SPEED_PAIRS):
            for side, seconds in (("ours", 1.0), ("trainer", 2.0)):
                stored.add(f"speed-{encoder}-{side}-{number}", {"train_seconds": seconds}, 1.0)
    return stored


def _answers(kind: Kind, truth: answers.Table, *, right: bool) -> list[object]:
    match kind:
        case "multilabel":
            rows = truth if right else 1 - truth
            return ["".join(str(int(each)) for each in row) for row in rows]
        case "pairs":
            return [str(int(right)) * len(truth)]
        case "regression":
            return [float(each) + 0.5 * (2 - right) for each in truth]


@pytest.mark.slow  # makes the pairs of texts, which takes 8 s
def test_summary_compares_both_sides(results: ResultsFile) -> None:
    found = report.summary(results, results, QUICK)
    assert found["pairs_acc_diff_low"] == 100
    assert found["multilabel_f1_diff_low"] > 50
    assert found["regression_rmse_ratio"] == pytest.approx(0.5)
    assert (found["modernbert_vs_trainer"], found["deberta_vs_trainer"]) == (0.5, 0.5)
    assert "multilabel   ours       100.00" in report.table(results, QUICK)


def test_scores_are_those_of_scikit_learn() -> None:
    truth = answers.truth("multilabel", QUICK)
    shifted = np.roll(truth, 1, axis=0)
    expected = f1_score(truth, shifted, average="macro", zero_division=0.0)
    assert report.score("multilabel", shifted, truth) == pytest.approx(100 * expected)


def test_stale_answers_are_recomputed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []

    def measure(_: str, cell: str, *, quick: bool) -> dict[str, Any]:
        computed.append(cell)
        return {} if cell.startswith("speed-") else {"settings": tasks.settings(cell, QUICK)}

    def run() -> list[str]:
        computed.clear()
        tasks.main()
        return [cell for cell in computed if not cell.startswith("speed-")]

    monkeypatch.setattr(tasks, "measure", measure)
    monkeypatch.setattr(report, "table", lambda *_: "")
    monkeypatch.setattr(report, "summary", lambda *_: {})
    monkeypatch.setattr("sys.argv", ["benchmarks.tasks", "--quick", "--results", str(tmp_path)])
    # A cell from before settings were stored.
    ResultsFile(tmp_path / "quick-tasks.jsonl").add(ACCURACY_CELLS[0], {"answers": []}, 1.0)
    assert run() == [*ACCURACY_CELLS]
    assert run() == []
    monkeypatch.setattr(tasks, "RATE", 1e-3)
    assert run() == [cell for cell in ACCURACY_CELLS if "trainer" in cell]
    monkeypatch.setattr(benchmarks.settings, "TRAINING_VERSION", 0)
    assert run() == [f"regression-ours-{seed}" for seed in SEEDS]
    monkeypatch.setattr(benchmarks.settings, "CLASSIFICATION_VERSION", 0)
    classified = ("multilabel-ours", "pairs-ours")
    assert run() == [cell for cell in ACCURACY_CELLS if cell.startswith(classified)]


@pytest.mark.slow  # makes the pairs, too
def test_labels_follow_the_rules_and_pairs_share_words() -> None:
    for row in sets.load("multilabel", QUICK)[Split.TRAIN]:
        assert ("story" in row.label) == bool(sets.RULES["story"].search(row.text))
        assert ("positive" in row.label) != ("negative" in row.label)
    pairs = sets.load("pairs", QUICK)[Split.TRAIN]
    assert {row.label for row in pairs} == {"same", "different"}
    for row in pairs:
        assert row.pair is not None
        assert row.pair != row.text
        assert set(row.text.split()) & set(row.pair.split())


@pytest.mark.slow  # makes the pairs, too
def test_linear_side_answers_every_test_text() -> None:
    for kind in KINDS:
        found = answers.table(kind, linear.accuracy(kind, 0, QUICK)["answers"])
        assert found.shape == answers.truth(kind, QUICK).shape


def test_trainer_is_timed_in_a_process_without_our_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(model: Any, texts: list[dict[str, Any]], *_: Any) -> tuple[int, float]:
        assert len(texts) == QUICK.speed_texts
        return 2, 1.5

    monkeypatch.setattr(speed, "train", train)
    monkeypatch.setattr(speed, "build_model", lambda *_: None)
    monkeypatch.setattr(speed, "ready", lambda _: pytest.fail("ours is prepared, too"))
    found = speed.seconds("modernbert", "trainer", QUICK)
    assert found == {"train_seconds": 1.5, "steps": 2}
