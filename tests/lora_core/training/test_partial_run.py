"""A partial run (a trial): continuing it gives the same result as an uninterrupted run."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_core import manifest
from lora_core.data.load import load_splits
from lora_core.errors.training import NonFiniteLoss
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.encoder import train_encoder
from tests.lora_core.training.twins import product, story
from tests.recording_observer import RecordingObserver

Make = Callable[..., TrainSpec]

EVERYTHING_RANDOM = {
    "method": {"type": "lora", "r": 4, "dropout": 0.1, "targets": ["query", "mlp"]},
    "optim": {
        "epochs": 2, "batch_size": 16, "micro_batch_tokens": 128,
        "encoder_dropout": 0.1, "head_dropout": 0.2,
    },
    "stop": {"select_by": "loss"},
}  # fmt: skip


def perform(spec: TrainSpec, place: Path, resume: Path | None = None) -> RecordingObserver:
    observer = RecordingObserver()
    checkpoint_settings = CheckpointSettings(place / "checkpoints", 300.0)
    train_encoder(
        spec,
        out_dir=place / "out",
        observer=observer,
        stop=observer,
        checkpoint_settings=checkpoint_settings,
        resume=resume,
    )
    return observer


def last(place: Path) -> Path:
    return max((place / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))


def facts(place: Path) -> dict[str, Any]:
    return manifest.verify(place / "out")


def test_consecutive_trials_equal_one_full_run(spec: Make, tmp_path: Path) -> None:
    shares = [0.2, 0.5, None]
    observer: list[Any] = []
    resume = None
    for i, share in enumerate(shares):
        trial = None if share is None else {"budget": share, "validation_texts": 7}
        place = tmp_path / str(i)
        observer += perform(spec(**EVERYTHING_RANDOM, trial=trial), place, resume).events
        resume = last(place) if share else None
    uninterrupted = RecordingObserver()
    train_encoder(
        spec(**EVERYTHING_RANDOM),
        out_dir=tmp_path / "o",
        observer=uninterrupted,
        stop=uninterrupted,
    )
    assert story(observer) == story(uninterrupted.events)
    assert product(tmp_path / "2" / "out") == product(tmp_path / "o")


def test_trial_reports_metrics_of_its_last_weights_without_a_model(
    spec: Make, tmp_path: Path
) -> None:
    observer = perform(spec(trial={"budget": 0.5, "validation_texts": 7}), tmp_path)
    made = facts(tmp_path)
    (started,) = observer.all("started")
    metrics = made["metrics"]
    assert metrics["steps"] == started.total_steps == last_step(observer)
    assert set(made["files"]) == {"predictions/validation.jsonl"}
    assert np.sum(metrics["validation"]["confusion_matrix"]) == 7
    assert not {"test", "linear", "calibration"} & metrics.keys()


def last_step(observer: RecordingObserver) -> int:
    return int(observer.all("step")[-1].step)


def test_trial_takes_at_least_one_step(spec: Make, tmp_path: Path) -> None:
    assert last_step(perform(spec(trial={"budget": 1e-6}), tmp_path)) == 1


def test_validation_texts_above_the_available_use_all(spec: Make, tmp_path: Path) -> None:
    described = spec(trial={"budget": 0.5, "validation_texts": 10_000})
    perform(described, tmp_path)
    correctness = facts(tmp_path)["correctness"]["validation"]
    assert correctness["count"] == len(load_splits(described.data).validation)


def test_trial_validation_subset_has_every_label(spec: Make, tmp_path: Path) -> None:
    """A split that was drawn is sorted by label."""
    described = spec(trial={"budget": 0.5, "validation_texts": 6}, data={"validation_size": 20})
    assert len({example.label for example in load_splits(described.data).validation[:6]}) == 1
    perform(described, tmp_path)
    truth = np.sum(facts(tmp_path)["metrics"]["validation"]["confusion_matrix"], axis=1)
    assert truth.sum() == 6
    assert (truth > 0).all()


def test_trials_with_a_frozen_encoder_use_cached_features(spec: Make, tmp_path: Path) -> None:
    few = {"budget": 0.5, "validation_texts": 7}
    perform(spec(method={"type": "baseline"}, trial=few), tmp_path / "few")
    perform(spec(method={"type": "baseline"}, trial={"budget": 0.5}), tmp_path / "all")
    lines = [
        {line["row"]: line["logits"] for line in map(json.loads, file.read_text().splitlines())}
        for file in sorted(tmp_path.glob("*/out/predictions/validation.jsonl"), reverse=True)
    ]
    assert len(lines[0]) == 7
    for row, logits in lines[0].items():
        assert logits == pytest.approx(lines[1][row], abs=1e-5)


def test_trial_with_nonfinite_loss_fails(spec: Make, tmp_path: Path) -> None:
    wild = spec(
        optim={"learning_rate": 1e10, "max_grad_norm": 1e6, "warmup": 0.0}, trial={"budget": 0.2}
    )
    with pytest.raises(NonFiniteLoss):
        perform(wild, tmp_path)


def test_metrics_only_result_and_train_metrics(spec: Make, tmp_path: Path) -> None:
    optim = {"epochs": 1}
    described = spec(optim=optim, result={"model": False, "train_metrics": True})
    perform(described, tmp_path / "alone")
    perform(spec(optim=optim), tmp_path / "all")
    alone, full = facts(tmp_path / "alone"), facts(tmp_path / "all")
    assert set(alone["files"]) == {"predictions/validation.jsonl", "predictions/test.jsonl"}
    for part in ("validation", "test"):
        assert alone["metrics"][part] == full["metrics"][part]
    assert "train" not in full["metrics"]
    train = alone["metrics"]["train"]
    assert np.sum(train["confusion_matrix"]) == len(load_splits(described.data).train)


def test_manifest_contains_correctness(spec: Make, tmp_path: Path) -> None:
    described = spec(optim={"epochs": 1})
    perform(described, tmp_path)
    made = facts(tmp_path)
    for split in (Split.VALIDATION, Split.TEST):
        correctness = made["correctness"][split]
        packed = np.frombuffer(base64.b64decode(correctness["correct"]), dtype=np.uint8)
        right = np.unpackbits(packed, count=correctness["count"])
        assert right.mean() == pytest.approx(made["metrics"][split]["accuracy"], abs=1e-12)
        confusion = np.array(made["metrics"][split]["confusion_matrix"])
        assert right.sum() == np.trace(confusion)
    parts = [made["correctness"][split]["texts_sha256"] for split in (Split.VALIDATION, Split.TEST)]
    assert parts[0] != parts[1]


def test_finished_trial_resumes_to_a_model(spec: Make, tmp_path: Path) -> None:
    """This is how the winner of a sweep gets its model: its trials keep metrics only."""
    optim = {"epochs": 1}
    perform(spec(optim=optim, result={"model": False}), tmp_path / "cell")
    observer = perform(spec(optim=optim), tmp_path / "model", resume=last(tmp_path / "cell"))
    perform(spec(optim=optim), tmp_path / "at once")
    assert not observer.all("step")
    assert product(tmp_path / "model" / "out") == product(tmp_path / "at once" / "out")
