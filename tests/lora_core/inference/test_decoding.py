"""Tests of decoding logits into labels with scores."""

import numpy as np
import pytest
import torch

from lora_core.inference.decoding import decode

LABELS = ["bad", "fine", "good"]


def test_scores_are_sorted_and_sum_to_one() -> None:
    [scores] = decode(torch.tensor([[0.0, 2.0, 1.0]]), LABELS)
    assert [label for label, _ in scores] == ["fine", "good", "bad"]
    assert sum(score for _, score in scores) == pytest.approx(1)
    assert scores[0][1] == pytest.approx(np.e**2 / (1 + np.e + np.e**2))


def test_extreme_logits_give_no_nan() -> None:
    [scores] = decode(torch.tensor([[-100.0, 5.0, -1e30]]), LABELS)
    assert scores[0][0] == "fine"
    assert scores[0][1] == pytest.approx(1.0)
    assert all(0 <= score <= 1 for _, score in scores)
