"""The verdict agrees with scipy and is correct for models of known quality."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from lora_core.results import Verdict
from lora_core.tasks.primary_metric import SIGNIFICANCE_LEVEL
from lora_core.tasks.single_label import SingleLabel
from lora_core.verdict import ReferencePredictions, build_verdict

LABELS = ("bad", "good")


def verdict(true_labels: list[int], predicted: list[int], **references: list[int]) -> Verdict:
    every = np.arange(len(true_labels))
    return build_verdict(
        SingleLabel(LABELS),
        np.array(true_labels),
        np.array(predicted),
        {name: ReferencePredictions(every, np.array(each)) for name, each in references.items()},
        training_targets=np.array(true_labels),
    )


def test_model_that_predicts_one_label_has_not_learned() -> None:
    found = verdict([0] * 80 + [1] * 20, [0] * 100)
    assert not found.learned
    assert found.testable
    assert found.headline.startswith("This model has learned nothing")
    assert found.never_predicted == ("good",)
    assert found.majority.difference == 0
    assert "Never predicted: good." in found.sentences


def test_headline_of_a_good_model_includes_the_interval() -> None:
    found = verdict([0, 1] * 100, [0, 1] * 90 + [1, 0] * 10)
    assert found.learned
    assert found.headline == (
        "90.0% of 200 test texts are classified correctly (85.1% to 93.4%), 40.0 points more "
        "than by always predicting bad."
    )


def test_model_that_learned_may_not_beat_the_majority_class() -> None:
    truth = [0] * 90 + [1] * 10
    answers = [0] * 84 + [1] * 6 + [1] * 7 + [0] * 3
    found = verdict(truth, answers)
    assert found.learned
    assert "not shown to be better than always predicting bad (90.0%" in found.headline


@pytest.mark.parametrize(
    ("texts", "true", "predicted", "found"),
    [
        *((100, 50, 50, found) for found in range(20, 50, 3)),
        (1000, 20, 10, 4),  # a rare label
        (1000, 20, 10, 1),
        (20_000, 100, 50, 5),
        (5, 3, 3, 3),  # few texts, all of them right
    ],
)
def test_learned_agrees_with_the_exact_test(
    texts: int, true: int, predicted: int, found: int
) -> None:
    """Of a 2 x 2 table: Fisher's, one-sided."""
    truth = [1] * true + [0] * (texts - true)
    answers = [1] * found + [0] * (true - found) + [1] * (predicted - found)
    answers += [0] * (texts - len(answers))
    p = hypergeom.sf(found - 1, texts, true, predicted)
    assert verdict(truth, answers).learned is bool(p < SIGNIFICANCE_LEVEL)


def test_three_texts_are_inconclusive() -> None:
    found = verdict([0, 1, 0], [0, 1, 0], linear=[1, 0, 1])
    assert not found.learned
    assert found.low < 0.5
    assert found.references["linear"].low < 0.3 < found.references["linear"].high


@pytest.mark.parametrize(
    "true", [[0] * 50, [0, 1, 0], [0] * 9 + [1]], ids=["one label", "three texts", "one rare text"]
)
def test_texts_that_cannot_tell_do_not_prove_that_nothing_is_learned(true: list[int]) -> None:
    found = verdict(true, true)
    assert not found.testable
    assert found.headline.startswith(f"100.0% of {len(true)} test texts are classified correctly")
    assert found.sentences[0].startswith("These texts cannot show whether the model has learned")


def test_better_reference_is_recommended() -> None:
    truth = [0, 1] * 100
    found = verdict(truth, [0, 1] * 70 + [1, 0] * 30, linear=[0, 1] * 95 + [1, 0] * 5)
    assert found.references["linear"].difference == pytest.approx(-0.25)
    assert any("worse than linear" in each and "train with the method linear" in each
               for each in found.sentences)  # fmt: skip


def test_equal_models_are_within_noise() -> None:
    truth = [0, 1] * 100
    same = [0, 1] * 90 + [1, 0] * 10
    assert "Within noise of probe on 200 texts (-1.0 to +1.0)." in verdict(
        truth, same, probe=same
    ).sentences  # fmt: skip


def test_reference_may_cover_a_subset_of_the_texts() -> None:
    truth = np.array([0, 1] * 50)
    reference = ReferencePredictions(np.arange(0, 100, 2), np.ones(50, dtype=np.int64))
    task = SingleLabel(LABELS)
    found = build_verdict(task, truth, truth, {"probe": reference}, training_targets=truth)
    assert (found.references["probe"].texts, found.references["probe"].difference) == (50, 1.0)
