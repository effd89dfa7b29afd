"""What `auto` tries within its budget, and what it chooses."""

from functools import partial

import numpy as np
import pytest

from lora_core.confidence_intervals import wilson_interval
from lora_core.model_selection import (
    CHEAPEST_FIRST_MIN_TEXTS,
    LINEAR_CANDIDATES,
    LORA_CANDIDATE,
    PROBE_CANDIDATES,
    CandidateScores,
    estimate_selection_seconds,
    plan_candidates,
    select_candidate_index,
)
from lora_core.specs.method import LinearSpec, SingleMethod
from lora_core.specs.task import RegressionSpec


def cost(method: SingleMethod, texts: int) -> float:
    """Seconds per method on a machine where LoRA takes a hundred times as long as the others."""
    return texts * (1e-2 if method.type == "lora" else 1e-4)


def scores(right: list[float]) -> CandidateScores:
    by_text = np.array(right)
    value = float(np.nanmean(by_text))
    interval = wilson_interval(value, int((~np.isnan(by_text)).sum()))
    return CandidateScores(by_text, value, interval)


def test_few_texts_prefer_lora() -> None:
    first, *others = plan_candidates(CHEAPEST_FIRST_MIN_TEXTS - 1, budget=1e6, seconds_of=cost)
    assert (first.method, first.folds, first.repeats) == (LORA_CANDIDATE, 5, 1)
    assert [each.method for each in others] == [*PROBE_CANDIDATES, *LINEAR_CANDIDATES]
    assert {(each.folds, each.repeats) for each in others} == {(5, 5)}


def test_more_texts_prefer_what_is_cheaper() -> None:
    candidates = plan_candidates(CHEAPEST_FIRST_MIN_TEXTS, budget=1e6, seconds_of=cost)
    assert [each.method for each in candidates] == [
        *PROBE_CANDIDATES, *LINEAR_CANDIDATES, LORA_CANDIDATE
    ]  # fmt: skip
    assert {each.folds for each in candidates} == {5}


def test_few_texts_try_lora_on_all_folds_or_not_at_all() -> None:
    """The verdict comes from cross-validation, and needs every text predicted once."""
    texts = CHEAPEST_FIRST_MIN_TEXTS - 1
    whole = estimate_selection_seconds(plan_candidates(texts, 1e6, cost), texts, cost)
    for budget, planned in ((whole, 6), (0.99 * whole, 5)):
        candidates = plan_candidates(texts, budget, cost)
        assert len(candidates) == planned
        assert {each.folds for each in candidates} == {5}


def test_many_texts_use_a_single_fold() -> None:
    assert {each.folds for each in plan_candidates(5_000, budget=1e6, seconds_of=cost)} == {1}


@pytest.mark.parametrize("budget", [0.001, 0.2, 2.0, 12.0, 25.0, 60.0, 1e6])
@pytest.mark.parametrize("texts", [1, 16, 128, 300, 1000, 20_000])
def test_plan_stays_within_its_budget_unless_it_is_the_cheapest(texts: int, budget: float) -> None:
    candidates = plan_candidates(texts, budget=budget, seconds_of=cost)
    cheapest = len(candidates) == 1 and isinstance(candidates[0].method, LinearSpec)
    assert cheapest or estimate_selection_seconds(candidates, texts, cost) <= budget


def test_smaller_budget_drops_folds_then_lora_then_probes() -> None:
    tried = [
        [
            (each.method.type, each.folds)
            for each in plan_candidates(500, budget=budget, seconds_of=cost)
        ]
        for budget in (1e6, 18.0, 10.0, 8.0, 1.0, 0.01)
    ]
    folds_of_lora = [dict(each).get("lora", 0) for each in tried]
    assert folds_of_lora[0] == 5
    assert folds_of_lora == sorted(folds_of_lora, reverse=True)
    assert 0 < folds_of_lora[1] < 5
    assert tried[-1] == [("linear", 1)]


def test_clearly_better_candidate_is_chosen() -> None:
    worse = scores([1.0, 0.0] * 50)
    better = scores([1.0] * 90 + [0.0] * 10)
    assert select_candidate_index([worse, better]) == 1


def test_simpler_candidate_is_chosen_within_noise() -> None:
    first = scores([1.0] * 70 + [0.0] * 30)
    hardly_better = scores([1.0] * 60 + [0.0] * 10 + [1.0] * 12 + [0.0] * 18)
    assert hardly_better.value > first.value
    assert select_candidate_index([first, hardly_better]) == 0


def test_candidates_are_compared_on_common_texts() -> None:
    missing = float("nan")
    everywhere = scores([1.0] * 50 + [0.0] * 50)  # accuracy 1 where the other is
    easy_half = scores([1.0] * 45 + [0.0] * 5 + [missing] * 50)
    assert easy_half.value > everywhere.value
    assert select_candidate_index([everywhere, easy_half]) == 0


def test_numbers_have_no_labels_to_weight() -> None:
    plan = partial(plan_candidates, 300, budget=1e6, seconds_of=cost)
    methods = [each.method for each in plan(task=RegressionSpec())]
    assert [each.type for each in methods] == [each.method.type for each in plan()]
    assert not any(getattr(each, "class_weight", None) for each in methods)
