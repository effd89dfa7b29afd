"""Metrics compared with scikit-learn and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from app.cli.evaluation_metrics import compute_single_label_metrics
from app.serving.schemas import LabelScore
from lora_core.inference.decoding import decode_label_scores
from lora_core.tasks.single_label import SingleLabel

NAMES = ["a", "b", "c"]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**32 - 1)), min_size=1, max_size=30))
def test_metrics_match_those_of_a_run(rows: list[tuple[int, int]]) -> None:
    truth = np.array([label for label, _ in rows], dtype=np.int64)
    logits = np.stack([np.random.default_rng(seed).normal(size=3) for _, seed in rows])
    task = SingleLabel(NAMES)
    expected = task.report(logits.astype(np.float32), truth)
    answers = [
        [LabelScore(label=name, score=score) for name, score in row]
        for row in decode_label_scores(torch.from_numpy(logits.astype(np.float32)), task)
    ]
    found = compute_single_label_metrics(NAMES, [NAMES[i] for i in truth], answers)
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    assert found["texts"] == len(rows)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss"):
        assert found[name] == pytest.approx(expected[name], abs=1e-5)
    for name in NAMES:
        assert found["per_class"][name] == pytest.approx(expected["per_class"][name])


def test_standard_error_is_binomial() -> None:
    right = [LabelScore(label="a", score=0.75), LabelScore(label="b", score=0.25)]
    found = compute_single_label_metrics(["a", "b"], ["a"] * 80 + ["b"] * 20, [right] * 100)
    assert found["accuracy"] == 0.8
    assert found["accuracy_standard_error"] == pytest.approx(0.04)
    matrix = confusion_matrix(["a"] * 80 + ["b"] * 20, ["a"] * 100)
    assert found["confusion_matrix"] == matrix.tolist()
    *_, f1, _ = precision_recall_fscore_support(
        ["a"] * 80 + ["b"] * 20, ["a"] * 100, zero_division=0.0
    )
    assert found["macro_f1"] == pytest.approx(f1.mean())


def test_zero_probability_has_no_loss() -> None:
    sure = [LabelScore(label="a", score=1.0), LabelScore(label="b", score=0.0)]
    assert compute_single_label_metrics(["a", "b"], ["b"], [sure])["loss"] is None
    assert compute_single_label_metrics(["a", "b"], ["a"], [sure])["loss"] == 0
