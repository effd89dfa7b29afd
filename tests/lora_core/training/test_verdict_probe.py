"""The probe that a run is compared with, on samples of the splits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from lora_core.data.load import load_splits
from lora_core.data.split import assign_folds
from lora_core.events import NullObserver
from lora_core.model_selection import PROBE_CANDIDATES
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.method import CandidateSpec
from lora_core.specs.train import TrainSpec
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import verdict
from lora_core.training.cross_validation import AnyMethodCrossValidator
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


def test_thresholds_without_validation_texts_come_from_held_out_folds(
    spec: Callable[..., TrainSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    described = spec(task={"tune_thresholds": True}, runtime={"precision": "fp32"})
    splits = load_splits(described.data)
    splits = replace(splits, train=splits.train + splits.validation, validation=())
    calibrate = Mock(wraps=SingleLabel.calibrate)
    monkeypatch.setattr(SingleLabel, "calibrate", lambda *rest: calibrate(*rest))
    progress = ProgressReporter(NullObserver(), RecordingObserver())
    found = verdict.fit_probe_and_predict(described, splits, progress)
    assert len(found.answers) == len(splits.test)
    _, logits, targets = calibrate.call_args.args
    validator = AnyMethodCrossValidator(described, splits.labels, splits.train, progress)
    expected = validator.predict_held_out_logits(CandidateSpec(method=PROBE_CANDIDATES[0]))[0]
    order = np.argsort(assign_folds(splits.train, seed=0), kind="stable")
    np.testing.assert_array_equal(targets, validator.targets[order])
    np.testing.assert_allclose(logits, expected[order], atol=1e-3)
