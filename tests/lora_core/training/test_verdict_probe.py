"""The probe that a run is compared with, on samples of the splits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_core.data.load import load_splits
from lora_core.events import NullObserver
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.train import TrainSpec
from lora_core.training import verdict
from lora_core.training.prepare import PreparedRun, prepare_run
from tests.recording_observer import RecordingObserver


def test_thresholds_of_the_probe_are_tuned_on_a_random_sample(
    spec: Callable[..., TrainSpec], reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validation split that is given may be sorted by label."""
    header, *lines = reviews.read_text(encoding="utf-8").splitlines()
    by_label = sorted(lines, key=lambda line: line.rpartition(",")[2])
    rows = [f"{line},{('train', 'validation', 'test')[i % 3]}" for i, line in enumerate(by_label)]
    reviews.write_text("\n".join([f"{header},split", *rows]), encoding="utf-8")
    described = spec(task={"tune_thresholds": True})
    splits = load_splits(described.data)
    labels = [example.label for example in splits.validation]
    assert labels == sorted(labels)
    prepared: list[PreparedRun] = []

    def prepare(*arguments: object) -> PreparedRun:
        prepared.append(prepare_run(*arguments))  # type: ignore[arg-type]
        return prepared[-1]

    monkeypatch.setattr(verdict, "prepare_run", prepare)
    monkeypatch.setattr(verdict, "PROBE_TEST_TEXTS", 15)
    progress = ProgressReporter(NullObserver(), RecordingObserver())
    verdict.fit_probe_and_predict(described, splits, progress)
    sample = prepared[0].splits.validation
    assert len(sample) == 15
    assert {example.label for example in sample} == {0, 1}
