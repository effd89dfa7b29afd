"""Calibration of a run: fitted on validation, reported and stored."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import log_loss

from lora_core import manifest
from lora_core.errors.training import NonFiniteLogits
from lora_core.inference.predictor import Predictor
from lora_core.specs.train import TrainSpec
from lora_core.training import model_outputs
from tests.recording_observer import RecordingObserver
from tests.tiny_base import make_reviews

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]

UNSURE = {"epochs": 1, "learning_rate": 0.0002}  # so short that some predictions are wrong


@pytest.fixture
def many(tmp_path: Path) -> str:
    """Enough texts to fit a temperature on a tenth of them."""
    return str(make_reviews(tmp_path / "many.csv", rows=1_000))


@pytest.fixture(scope="module")
def trained() -> list[Path]:
    """The artifact of `calibrated`, once there is one."""
    return []


@pytest.fixture
def calibrated(spec: Make, train: Train, many: str, trained: list[Path]) -> Path:
    """The artifact of a run with a temperature, which no test changes."""
    if not trained:
        trained.append(train(spec(optim=UNSURE, data={"source": many}))[1])
    return trained[0]


def kept(out: Path, split: str) -> tuple[NDArray[np.float64], list[int]]:
    """Logits and true labels of the stored predictions."""
    lines = (out / "predictions" / f"{split}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return np.array([row["logits"] for row in rows]), [row["label"] for row in rows]


def test_temperature_is_optimal_for_the_stored_validation_logits(calibrated: Path) -> None:
    out = calibrated
    facts = manifest.read(out)
    calibration = facts["metrics"]["calibration"]
    temperature = calibration["temperature"]
    assert facts["calibration"] == {"temperature": temperature}
    assert temperature != 1
    assert calibration["fitted"]
    logits, labels = kept(out, "validation")
    losses = {t: log_loss(labels, softmax(logits / t, axis=1)) for t in np.geomspace(0.05, 20, 601)}
    assert temperature == pytest.approx(min(losses, key=lambda t: losses[t]), rel=0.01)
    for split in ("validation", "test"):
        logits, labels = kept(out, split)
        assert calibration[split]["texts"] == len(labels)
        assert calibration[split]["before"]["loss"] == pytest.approx(
            facts["metrics"][split]["loss"]
        )
        after = log_loss(labels, softmax(logits / temperature, axis=1))
        assert calibration[split]["after"]["loss"] == pytest.approx(after, rel=1e-4)
    assert calibration["validation"]["after"]["loss"] <= calibration["validation"]["before"]["loss"]


def test_few_texts_fit_no_temperature(spec: Make, train: Train) -> None:
    calibration = manifest.read(train(spec(optim=UNSURE))[1])["metrics"]["calibration"]
    assert (calibration["temperature"], calibration["fitted"]) == (1.0, False)
    assert calibration["test"]["before"] == calibration["test"]["after"]


def test_predictor_applies_the_temperature(calibrated: Path) -> None:
    out = calibrated
    golden = json.loads((out / "golden.json").read_text())
    temperature = manifest.read(out)["calibration"]["temperature"]
    expected = softmax(np.array([row["logits"] for row in golden]) / temperature, axis=1)
    for answer, row in zip(
        Predictor.load(out).predict([row["text"] for row in golden]), expected, strict=True
    ):
        assert [score for _, score in answer] == pytest.approx(sorted(row, reverse=True), abs=1e-4)


def test_test_split_does_not_affect_the_temperature(
    spec: Make, train: Train, tmp_path: Path
) -> None:
    with make_reviews(tmp_path / "all.csv", rows=300).open(newline="") as file:
        head, *rows = csv.reader(file)

    def part(name: str, rows: list[list[str]]) -> str:
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
        return str(tmp_path / name)

    given = {"train": part("train.csv", rows[:80]), "validation": part("val.csv", rows[80:200])}
    wrong = [[text, "good" if label == "bad" else "bad"] for text, label in rows[200:]]
    calibrations = []
    for test in (part("test.csv", rows[200:]), part("wrong.csv", wrong)):
        _, out = train(spec(optim=UNSURE, data={"source": {**given, "test": test}}))
        calibrations.append(manifest.read(out)["metrics"]["calibration"])
    assert calibrations[0]["temperature"] == calibrations[1]["temperature"]
    assert calibrations[0]["validation"] == calibrations[1]["validation"]
    assert calibrations[0]["test"] != calibrations[1]["test"]


def test_nonfinite_validation_logits_fail_the_run(
    spec: Make, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test text overflows; the validation loss was finite."""
    original = model_outputs.compute_logits

    def overflowing(forward: Any, part: Any, **more: Any) -> NDArray[np.float32]:
        rows = original(forward, part, **more)
        if len(part) == 24:
            rows[3] = np.inf
        return rows

    monkeypatch.setattr(model_outputs, "compute_logits", overflowing)
    with pytest.raises(NonFiniteLogits, match="1 of 24 held-out texts"):
        train(spec(optim={"epochs": 1}))
    assert not list(tmp_path.glob("artifact-*/manifest.json"))
