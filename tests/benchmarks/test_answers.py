"""A cell matches a run of the project, and tried changes do not use the test split."""

import math
from pathlib import Path

import numpy as np
import pytest

import benchmarks.settings
from benchmarks.accuracy import answers
from benchmarks.accuracy.contenders import FULL, Cell, few
from benchmarks.silent import NeverStop
from lora_core.data import linear_baseline
from lora_core.data.load import load_splits
from lora_core.events import NullObserver
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import LinearSpec, LoraSpec
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import OptimSpec, RunOutputSpec, TrainSpec
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import model_outputs
from lora_core.training.encoder import train_encoder
from tests.tiny_base import make_base, make_reviews


@pytest.fixture
def spec(tmp_path: Path) -> TrainSpec:
    reviews = str(make_reviews(tmp_path / "reviews.csv"))
    data = DataSpec(source=reviews, train_size=72, validation_size=12, test_size=36)
    optim = OptimSpec(epochs=2, learning_rate=0.01, batch_size=8)
    base = str(make_base(tmp_path / "base"))
    result = RunOutputSpec(cross_validation=False)
    return TrainSpec(method=LoraSpec(), base=base, data=data, optim=optim, result=result)


def cell(spec: TrainSpec | DataSpec, evaluated_on: Split) -> Cell:
    return Cell("reviews", "lora", 0, spec, evaluated_on)


@pytest.mark.slow
def test_cell_matches_a_run(spec: TrainSpec, tmp_path: Path) -> None:
    metrics = answers.run(cell(spec, Split.TEST))
    summary = train_encoder(
        spec, out_dir=tmp_path / "model", observer=NullObserver(), stop=NeverStop()
    )
    assert metrics["accuracy"] == summary["test"]["accuracy"]
    assert metrics["accuracy"] == np.mean([int(bit) for bit in metrics["correct"]])
    assert len(metrics["correct"]) == 36
    assert (metrics["steps"], metrics["best_step"]) == (summary["steps"], summary["best_step"])


@pytest.mark.slow  # loads real texts and fits three models
def test_linear_model_matches_the_baseline_of_a_run() -> None:
    data = few(FULL)["rotten-tomatoes-2000"].model_copy(update={"train_size": 500, "test_size": 90})
    splits = load_splits(data)
    competitor = linear_baseline.fit_or_load_linear_baseline(
        splits, SingleLabel(splits.labels)
    ).metrics
    assert answers.run(cell(data, Split.TEST))["accuracy"] == competitor.test["accuracy"]
    assert (
        answers.run(cell(data, Split.VALIDATION))["accuracy"] == competitor.validation["accuracy"]
    )


@pytest.mark.slow
def test_trying_a_change_does_not_use_the_test_split(
    spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, logits = set(), model_outputs.compute_logits

    def watched(forward, part, **kwargs):  # type: ignore[no-untyped-def]
        seen.add(part.split)
        return logits(forward, part, **kwargs)

    monkeypatch.setattr(model_outputs, "compute_logits", watched)
    metrics = answers.run(cell(spec, Split.VALIDATION))
    assert (seen, len(metrics["correct"])) == ({Split.VALIDATION}, 12)


def test_settings_hash_covers_explicit_and_default_values(
    spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(**optim: float | None) -> str:
        changed = spec.optim.model_copy(update=optim)
        return answers.settings(cell(spec.model_copy(update={"optim": changed}), Split.TEST))

    assert settings() == settings(learning_rate=0.01)
    assert settings() != settings(warmup=0.2)
    rate = 1.5e-3 * math.sqrt(72 / 256)  # of a narrow base and few texts
    assert settings(learning_rate=None) == settings(learning_rate=rate)
    assert settings(epochs=None) == settings(epochs=7)  # as many as make 60 updates
    mean, first = (
        answers.settings(cell(spec.model_copy(update={"pooling": each}), Split.TEST))
        for each in (Pooling.MEAN, Pooling.CLS)
    )
    assert mean != first
    for runtime, same in (({"threads": 1}, True), ({"seed": 1}, False)):
        moved = spec.model_copy(update={"runtime": spec.runtime.model_copy(update=runtime)})
        assert (answers.settings(cell(moved, Split.TEST)) == settings()) is same
    fitted = answers.settings(cell(spec.data, Split.TEST))
    monkeypatch.setattr(linear_baseline, "SPEC", LinearSpec(C=2.0))
    assert answers.settings(cell(spec.data, Split.TEST)) != fitted
    before = settings()
    monkeypatch.setattr(benchmarks.settings, "CLASSIFICATION_VERSION", 0)
    assert settings() != before
