"""The verdict, against the tests of scipy and on models whose worth is known."""

import numpy as np
import pytest
from scipy.stats import binomtest

from lora_core.verdict import CHANCE, Rival, Verdict, judge

LABELS = ("bad", "good")


def verdict(truth: list[int], answers: list[int], **more: object) -> Verdict:
    rivals = {name: Rival(np.arange(len(truth)), np.array(other)) for name, other in more.items()}
    majority = int(np.bincount(truth).argmax())
    return judge(np.array(truth), np.array(answers), rivals, labels=LABELS, majority=majority)


def test_one_label_for_everything_is_nothing_learned() -> None:
    found = verdict([0] * 80 + [1] * 20, [0] * 100)
    assert not found.learned
    assert found.headline.startswith("This model has learned nothing")
    assert found.never_answered == ("good",)
    assert found.majority.difference == 0
    assert "Never answered: good." in found.sentences


def test_a_good_model_says_so_with_its_interval() -> None:
    found = verdict([0, 1] * 100, [0, 1] * 90 + [1, 0] * 10)
    assert found.learned
    assert found.headline == (
        "90.0% of 200 test texts are answered rightly (85.1% to 93.4%), 40.0 points more than by "
        "always answering bad."
    )


def test_learned_but_no_better_than_the_frequent_class() -> None:
    truth = [0] * 90 + [1] * 10
    answers = [0] * 84 + [1] * 6 + [1] * 7 + [0] * 3
    found = verdict(truth, answers)
    assert found.learned
    assert "no better than always answering bad (90.0%" in found.headline


@pytest.mark.parametrize("right", range(40, 100, 5))
def test_chance_is_that_of_the_binomial_test(right: int) -> None:
    truth = [0, 1] * 50
    answers = [label if i < right else 1 - label for i, label in enumerate(truth)]
    by_chance = 0.5
    p = binomtest(right, 100, by_chance, alternative="greater").pvalue
    assert verdict(truth, answers).learned is bool(p < CHANCE)


def test_three_texts_prove_nothing() -> None:
    found = verdict([0, 1, 0], [0, 1, 0], linear=[1, 0, 1])
    assert not found.learned
    assert found.low < 0.5
    assert found.rivals["linear"].low < 0.3 < found.rivals["linear"].high


def test_a_better_rival_is_recommended() -> None:
    truth = [0, 1] * 100
    found = verdict(truth, [0, 1] * 70 + [1, 0] * 30, linear=[0, 1] * 95 + [1, 0] * 5)
    assert found.rivals["linear"].difference == pytest.approx(-0.25)
    assert any("worse than linear" in each and "train with the method linear" in each
               for each in found.sentences)  # fmt: skip


def test_equals_are_called_equal() -> None:
    truth = [0, 1] * 100
    same = [0, 1] * 90 + [1, 0] * 10
    assert "As good as probe, as far as 200 texts can tell (-1.0 to +1.0)." in verdict(
        truth, same, probe=same
    ).sentences  # fmt: skip


def test_a_rival_may_have_answered_some_of_the_texts() -> None:
    truth = np.array([0, 1] * 50)
    rival = Rival(np.arange(0, 100, 2), np.ones(50, dtype=np.int64))
    found = judge(truth, truth, {"probe": rival}, labels=LABELS, majority=0)
    assert (found.rivals["probe"].texts, found.rivals["probe"].difference) == (50, 1.0)
