"""Misclassified texts: sorted by confidence and stored with the start of each text."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from lora_core.data.load import load_splits
from lora_core.data.split import Example
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks.base import Calibration
from lora_core.tasks.mispredictions import most_confident_errors
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import correctness
from tests.recording_observer import RecordingObserver

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]
TASK = SingleLabel(("no", "yes"))


def test_misclassified_texts_are_sorted_by_confidence() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(scale=3, size=(200, 4)).astype(np.float32)
    labels = random.integers(0, 4, size=200)
    found = most_confident_errors(logits, labels, temperature=2.5, limit=30)
    scores = softmax(logits.astype(np.float64) / 2.5, axis=1)
    wrong = [i for i in range(200) if scores[i].argmax() != labels[i]]
    expected = sorted(wrong, key=lambda i: -scores[i].max())[:30]
    assert [each.text_index for each in found] == expected
    for each in found:
        assert each.predicted == scores[each.text_index].argmax()
        assert each.score == pytest.approx(scores[each.text_index].max())
        assert each.true_score == pytest.approx(scores[each.text_index, labels[each.text_index]])


def test_without_errors_nothing_is_listed(tmp_path: Path) -> None:
    logits = np.array([[800.0, -800.0], [0.0, 1e-3]], dtype=np.float32)
    examples = [Example(1, "a", 0), Example(2, "b", 1)]
    assert most_confident_errors(logits, np.array([0, 1]), temperature=0.05, limit=9) == []
    sharp = Calibration(temperature=0.05)
    correctness.save_misclassified(tmp_path, "test", examples, logits, TASK, sharp)
    assert (tmp_path / "misclassified" / "test.jsonl").read_bytes() == b""


def test_long_text_is_truncated(tmp_path: Path) -> None:
    examples = [Example(7, "\u2028é" * 1001, 0), Example(9, "short", 1)]
    logits = np.array([[0, 5], [2, 0]], dtype=np.float32)
    correctness.save_misclassified(tmp_path, "test", examples, logits, TASK, Calibration())
    lines = (tmp_path / "misclassified" / "test.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["row"], first["text"], first["cut"]) == (7, "\u2028é" * 1000, True)
    assert (first["label"], first["predicted"]) == ("no", "yes")
    assert first["score"] + first["true_score"] == pytest.approx(1)
    assert (second["row"], second["text"], second["cut"]) == (9, "short", False)


def test_run_stores_misclassified_texts(spec: Make, train: Train) -> None:
    described = spec(optim={"epochs": 1, "learning_rate": 1e-5})  # which learns nothing
    observer, out = train(described)
    labels = observer.all("finished")[0].summary["labels"]
    splits = load_splits(described.data)
    for split in (Split.VALIDATION, Split.TEST):
        kept, answers = (
            list(map(json.loads, (out / folder / f"{split}.jsonl").read_text().splitlines()))
            for folder in ("misclassified", "predictions")
        )
        wrong = {each["row"] for each in answers if each["label"] != each["predicted"]}
        assert wrong
        assert {each["row"] for each in kept} <= wrong
        assert len(kept) == len(wrong)  # fewer than `misclassified.MAX_SAVED`
        texts = {each.row: (each.text, labels[each.label]) for each in splits.examples_of(split)}
        assert [(each["text"], each["label"]) for each in kept] == [
            texts[each["row"]] for each in kept
        ]


def test_run_without_a_model_stores_no_texts(spec: Make, train: Train) -> None:
    _, out = train(spec(optim={"epochs": 1}, result={"model": False}))
    assert not (out / "misclassified").exists()
