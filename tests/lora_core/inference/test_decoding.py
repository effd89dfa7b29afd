"""Tests of decoding logits into labels with scores."""

import numpy as np
import pytest
import torch

from lora_core.inference.decoding import decode_label_scores, decode_outputs
from lora_core.specs.predict import ScoreFunction
from lora_core.tasks.base import Calibration
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.single_label import SingleLabel

TASK = SingleLabel(["bad", "fine", "good"])


def test_scores_are_sorted_and_sum_to_one() -> None:
    [scores] = decode_label_scores(torch.tensor([[0.0, 2.0, 1.0]]), TASK)
    assert [label for label, _ in scores] == ["fine", "good", "bad"]
    assert sum(score for _, score in scores) == pytest.approx(1)
    assert scores[0][1] == pytest.approx(np.e**2 / (1 + np.e + np.e**2))


def test_extreme_logits_give_no_nan() -> None:
    [scores] = decode_label_scores(torch.tensor([[-100.0, 5.0, -1e30]]), TASK)
    assert scores[0][0] == "fine"
    assert scores[0][1] == pytest.approx(1.0)
    assert all(0 <= score <= 1 for _, score in scores)


def test_labels_of_a_text_have_independent_calibrated_scores() -> None:
    calibration = Calibration(scale=(1.0, 2.0), offset=(0.0, 1.0), thresholds=(0.5, 0.5))
    [scores] = decode_label_scores(np.array([[2.0, 1.0]]), MultiLabel(["a", "b"]), calibration)
    assert [label for label, _ in scores] == ["b", "a"]
    expected = [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-2))]
    assert [score for _, score in scores] == pytest.approx(expected)
    [raw] = decode_label_scores(np.array([[2.0, 1.0]]), MultiLabel(["a", "b"]), calibration, "none")
    assert raw == [("a", 2.0), ("b", 1.0)]


def test_number_is_in_the_unit_of_the_training_texts() -> None:
    assert decode_label_scores(np.array([[0.5], [-1.0]]), Regression(3.0, 2.0)) == [
        [("value", 4.0)],
        [("value", 1.0)],
    ]


MULTI_LABEL = MultiLabel(["a", "b", "c"])
CALIBRATION = Calibration(scale=(1.0, 2.0, 1.0), offset=(0.0, 1.0, 0.0), thresholds=(0.9, 0.5, 0.5))


@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
def test_labels_that_reach_their_thresholds_are_predicted(function: ScoreFunction | None) -> None:
    logits = np.array([[2.0, 1.0, 0.0], [2.5, -1.0, -0.1]])
    rows = decode_outputs(logits, MULTI_LABEL, CALIBRATION, function)
    # Thresholds are those of calibrated sigmoids (0.88, 0.95, 0.5) and (0.92, 0.27, 0.48).
    predicted = [{output.label for output in row if output.predicted} for row in rows]
    assert predicted == [{"b", "c"}, {"a"}]
    pairs = [[(output.label, output.score) for output in row] for row in rows]
    assert pairs == decode_label_scores(logits, MULTI_LABEL, CALIBRATION, function)


def test_number_has_an_interval() -> None:
    task, calibration = Regression(3.0, 2.0), Calibration(scale=(2.0,), offset=(3.0,))
    [[plain]] = decode_outputs(np.array([[0.5]]), task, calibration)
    assert plain.to_json() == {"label": "value", "score": 4.0}
    wide = calibration.model_copy(update={"half_width": 0.5})
    [[output]] = decode_outputs(np.array([[0.5]]), task, wide)
    assert output.to_json() == {"label": "value", "score": 4.0, "low": 3.5, "high": 4.5}
    [[squashed]] = decode_outputs(np.array([[0.5]]), task, wide, "sigmoid")
    assert (squashed.low, squashed.high) == (3.5, 4.5)


def test_label_of_a_single_label_task_has_only_its_score() -> None:
    [row] = decode_outputs(np.array([[0.0, 1.0, 0.0]]), TASK)
    assert [output.to_json().keys() for output in row] == [{"label", "score"}] * 3
