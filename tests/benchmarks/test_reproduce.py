"""Rows match the lessons, the size depends on the machine, and cells are stored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.settings
from benchmarks import child_process
from benchmarks.reproduce import cells, place, plan
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.plan import HUB, LINEAR, PART, ROWS, SHARE, SIZES, Cell, Size
from benchmarks.results_file import ResultsFile
from lora_core import compatibility
from lora_core.data.load import load_splits
from lora_core.specs.data import Split
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import CheckpointSelectionAndStopSpec, OptimSpec

Report = dict[str, Any]
Run = Callable[..., Report]
TRAINED = [row for row in ROWS if row != LINEAR]


@pytest.mark.parametrize("row", TRAINED)
def test_trainable_parameters_match_the_lessons(row: str) -> None:
    spec = Cell(HUB, row, 0).spec
    shape = compatibility.read_encoder_shape(
        {"model_type": "distilbert"}, base=spec.encoder_base
    )  # its usual sizes
    compatibility.check_compatibility(shape, spec)
    trained = compatibility.count_parameters(shape, spec.encoder_method, n_labels=2).trainable
    lesson = ROWS[row].lesson
    assert trained == (lesson.parameters if lesson else 663_552 + 592_130)


@pytest.mark.parametrize("size", SIZES)
def test_every_run_has_the_settings_of_its_row(size: Size) -> None:
    for row in TRAINED:
        spec = Cell(size, row, 2).spec
        assert (spec.base, spec.data, spec.runtime.seed) == (size.base, size.data, 2)
        assert (spec.result.train_metrics, spec.result.model) == (True, False)
    lessons = [Cell(size, row, 0).spec.optim for row in TRAINED if row != "ours"]
    assert len(set(lessons)) == 1
    assert (lessons[0].learning_rate, lessons[0].batch_size, lessons[0].epochs) == (5e-5, 12, 3)
    ours = Cell(size, "ours", 0).spec
    assert (ours.method, ours.optim, ours.stop) == (
        LoraSpec(),
        OptimSpec(),
        CheckpointSelectionAndStopSpec(),
    )


@pytest.mark.slow  # loads all reviews
def test_sample_has_enough_texts() -> None:
    splits = load_splits(SHARE.data)
    counts = [len(splits.examples_of(split)) for split in Split]
    assert counts == [20_000, 2500, 2500]


@pytest.mark.parametrize("name", ["", "sample-4000/lora", "sample-4000/linear/0", "x/lora/0"])
def test_unknown_cell_is_refused(name: str) -> None:
    with pytest.raises(SystemExit, match="one is sample-4000/lora/0"):
        plan.find(name)


@pytest.mark.parametrize(
    ("requested", "whole", "gpu", "trouble", "size", "why"),
    [
        (None, False, False, None, PART, "no GPU"),
        (None, False, True, "ConnectError", PART, "the hub does not give the base: ConnectError"),
        (None, False, True, None, HUB, "there is a GPU, and the hub answers"),
        (None, True, True, None, SHARE, "was requested"),
        ("sample", False, True, None, PART, "was requested"),
        ("sample", True, True, None, SHARE, "was requested"),
        ("hub", False, False, "ConnectError", HUB, "was requested"),
    ],
)
def test_size_depends_on_the_machine_and_the_options(
    monkeypatch: pytest.MonkeyPatch,
    requested: str | None,
    whole: bool,
    gpu: bool,
    trouble: str | None,
    size: Size,
    why: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(place, "hub_trouble", lambda: trouble)
    found, reason = place.chosen(requested, whole=whole)
    assert found == size
    assert why in reason


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cells that were computed, with made-up results."""
    names: list[str] = []

    def measure(_: str, name: str, *, quick: bool) -> Report:
        names.append(name)
        accuracies = {split.value: 0.5 for split in Split}
        settings = cells.settings(plan.find(name, quick=quick))
        rest = {"data": "same", "correct": "1010", "train_seconds": 1.0, "device": "cpu"}
        return {"settings": settings, **accuracies, **rest}

    monkeypatch.setattr(child_process, "measure", measure)
    return names


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A run on the sample; returns its last line of output."""

    def run(*words: str) -> Report:
        main(["--on", "sample", "--results", str(tmp_path), *words])
        report: Report = json.loads(capsys.readouterr().out.splitlines()[-1])
        return report

    return run


def test_seeds_are_added_to_stored_results(computed: list[str], run: Run) -> None:
    assert run("--seeds", "1")["rows"]["lora"]["seeds"] == 1
    assert len(computed) == 6
    assert run("--seeds", "3")["rows"]["lora"]["seeds"] == 3
    assert len(computed) == len(set(computed)) == 16
    assert run("--seeds", "1")["rows"]["lora"]["seeds"] == 3  # all stored seeds are reported
    assert len(computed) == 16


def test_fresh_recomputes_its_own_size(computed: list[str], run: Run) -> None:
    run("--share", "1")
    run()
    computed.clear()
    run("--fresh", "--share", "1")
    assert computed == [cell.name for cell in plan.cells(SHARE, 1)]
    computed.clear()
    run()
    assert computed == []


def test_changed_settings_are_recomputed(
    computed: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--seeds", "2")
    computed.clear()
    settings = cells.settings
    more = {"full": {"new": True}}
    monkeypatch.setattr(cells, "settings", lambda cell: settings(cell) | more.get(cell.row, {}))
    rows = run()["rows"]
    assert computed == ["sample-4000/full/0"]
    assert (rows["full"]["seeds"], rows["lora"]["seeds"]) == (1, 2)  # no mean of old and new


def test_every_setting_is_written_with_the_results(
    computed: list[str], run: Run, tmp_path: Path
) -> None:
    report = run("--quick")
    (kept,) = tmp_path.glob("quick-reproduce-*.jsonl")
    settings = json.loads((tmp_path / report["settings"]).read_text())
    assert settings.keys() == ResultsFile(kept).cells.keys() == {*computed}
    assert settings["sample-4000/lora/0"]["method"]["alpha"] == 16.0
    ours = settings["sample-4000/ours/0"]
    assert ours["optim"]["epochs"] == 30  # a default, settled: two updates of 16 texts in each
    assert ours["optim"]["learning_rate"] == pytest.approx(1.5e-3 * (32 / 256) ** 0.5)
    assert ours["training_version"] == benchmarks.settings.CLASSIFICATION_VERSION
    assert settings["sample-4000/linear"]["linear"]["C"] == 4.0
    assert settings["sample-4000/last/0"]["computed"]["device"] == "cpu"


@pytest.mark.e2e
@pytest.mark.slow  # `test_reproduce_hub` computes one of each kind
def test_quick_run_computes_the_full_table(run: Run) -> None:
    rows = run("--quick")["rows"]
    assert rows.keys() == ROWS.keys()
    assert rows["last"]["parameters"] == 148_610
    assert all(0 <= metrics["test"] <= 1 for metrics in rows.values())
