"""Search spaces: their trials, the order, and invalid spaces."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from app.sweeps import search_space
from app.sweeps.errors import (
    FieldNotVariable,
    LogRangeNotPositive,
    RangeNeedsCount,
    RangeReversed,
    SearchSpaceTooSmall,
    TooManyTrialsInSweep,
)
from app.sweeps.search_space import Range, SearchSpace


def make_space(**dimensions: Any) -> SearchSpace:
    return SearchSpace.model_validate({"dimensions": dimensions})


def test_in_a_grid_the_last_field_varies_fastest() -> None:
    trials = list(search_space.iterate_grid_settings(make_space(a=[1, 2], b=["x", "y"])))
    assert trials == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        ({"low": 1, "high": 5}, [1, 2, 3, 4, 5]),
        ({"low": 0.0, "high": 1.0, "count": 3}, [0.0, 0.5, 1.0]),
        ({"low": 1e-4, "high": 1e-2, "log": True, "count": 3}, [1e-4, 1e-3, 1e-2]),
        ({"low": 1, "high": 64, "log": True, "count": 7}, [1, 2, 4, 8, 16, 32, 64]),
        ({"low": 1, "high": 3, "count": 9}, [1, 2, 3]),  # no duplicates
    ],
)
def test_the_values_of_a_range(dimension: dict[str, Any], values: list[float]) -> None:
    found = [
        settings["a"] for settings in search_space.iterate_grid_settings(make_space(a=dimension))
    ]
    assert found == pytest.approx(values)
    assert all(type(x) is type(y) for x, y in zip(found, values, strict=True))


def test_a_logarithmic_range_is_uniform_in_the_logarithm() -> None:
    drawn = search_space.sample_settings(
        make_space(a={"low": 1e-4, "high": 1e-2, "log": True}), 2000, seed=0
    )
    below = sum(settings["a"] < 1e-3 for settings in drawn) / 2000
    assert below == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))
    assert all(1e-4 <= settings["a"] <= 1e-2 for settings in drawn)


@pytest.mark.parametrize(
    ("log", "shares"),
    [(False, [1 / 3, 1 / 3, 1 / 3]), (True, np.log([3, 5 / 3, 7 / 5]) / math.log(7))],
)
def test_the_bounds_of_integers_are_drawn_as_often_as_others(
    log: bool, shares: Sequence[float]
) -> None:
    drawn = search_space.sample_settings(
        make_space(r={"low": 1, "high": 3, "log": log}, a={"low": 0.0, "high": 1.0}), 3000, seed=1
    )
    times = Counter(settings["r"] for settings in drawn)
    assert [times[r] / 3000 for r in (1, 2, 3)] == pytest.approx(
        list(shares), abs=4 * math.sqrt(0.25 / 3000)
    )


def test_a_sample_is_reproducible_and_has_no_duplicates() -> None:
    wide = make_space(a={"low": 0.0, "high": 1.0}, b=[1, 2, 3])
    few, many = (
        search_space.sample_settings(wide, 10, seed=3),
        search_space.sample_settings(wide, 40, seed=3),
    )
    assert few == many[:10]
    assert len({search_space.canonical_json(settings) for settings in many}) == 40
    assert search_space.sample_settings(wide, 10, seed=4) != few
    more = search_space.sample_settings(wide, 10, seed=3, exclude=few)
    assert not {search_space.canonical_json(settings) for settings in more} & {
        search_space.canonical_json(settings) for settings in few
    }


def test_a_sample_is_at_most_the_whole_space() -> None:
    small = make_space(a=[1, 2, 3], b=[1, 2])
    assert len(search_space.sample_settings(small, 6, seed=0)) == 6
    with pytest.raises(SearchSpaceTooSmall, match="only 6 different trials, but 7"):
        search_space.sample_settings(small, 7, seed=0)


def test_a_grid_of_ten_million_trials_is_rejected_at_once() -> None:
    many = list(range(100))
    with pytest.raises(
        TooManyTrialsInSweep, match="10,000,000 trials, and the limit for a sweep is 5,000"
    ):
        search_space.iterate_grid_settings(make_space(a=many, b=many, c=many, d=list(range(10))))


def test_the_values_of_a_range_count_once_each() -> None:
    few = make_space(r={"low": 1, "high": 8, "count": 5000}, alpha=[4, 8])
    assert search_space.grid_size(few) == len(list(search_space.iterate_grid_settings(few))) == 16


def test_a_grid_search_rejects_a_continuous_range() -> None:
    with pytest.raises(RangeNeedsCount, match="'a'"):
        search_space.iterate_grid_settings(make_space(a={"low": 0.0, "high": 1.0}))


@pytest.mark.parametrize("bounds", [(2, 1), (1, 1), (0.5, 0.25)])
def test_reversed_bounds_are_rejected(bounds: tuple[float, float]) -> None:
    with pytest.raises(RangeReversed, match="must be less than"):
        search_space.validate_ranges(make_space(a={"low": bounds[0], "high": bounds[1]}))


@pytest.mark.parametrize("low", [0, -1.0])
def test_a_logarithmic_range_must_start_above_zero(low: float) -> None:
    with pytest.raises(LogRangeNotPositive, match="more than 0"):
        search_space.validate_ranges(make_space(a={"low": low, "high": 1.0, "log": True}))


@pytest.mark.parametrize(
    "dimensions",
    [{}, {"a": []}, {"a": [1, 1]}, {"a": {"low": 1}}, {"a": {"low": 1, "high": "9"}}, {"a": 3}],
)
def test_invalid_spaces_are_rejected(dimensions: Any) -> None:
    with pytest.raises(ValidationError):
        SearchSpace.model_validate({"dimensions": dimensions})


def test_settings_are_applied_outer_fields_first() -> None:
    job = {"method": {"type": "lora", "r": 8}, "base": "b"}
    settings = {"optim.learning_rate": 0.1, "method.r": 2, "method": {"type": "lora", "alpha": 1.0}}
    assert search_space.apply_settings(job, settings) == {
        "method": {"type": "lora", "alpha": 1.0, "r": 2},
        "base": "b",
        "optim": {"learning_rate": 0.1},
    }
    assert job == {"method": {"type": "lora", "r": 8}, "base": "b"}


def test_boundary_settings_vary_one_field_at_a_time() -> None:
    settings = list(
        search_space.one_at_a_time_settings(make_space(a=[1, 2, 3], b={"low": 0.5, "high": 2.0}))
    )
    assert settings == [
        {"a": 1, "b": 0.5}, {"a": 2, "b": 0.5}, {"a": 3, "b": 0.5}, {"a": 1, "b": 2.0},
    ]  # fmt: skip


def test_an_extended_space_keeps_its_order_and_its_fields() -> None:
    wide = search_space.extend_space(
        make_space(a=[1, 2], b={"low": 1, "high": 2}), {"a": [2, 3], "b": Range(low=1, high=9)}
    )
    assert wide == make_space(a=[1, 2, 3], b={"low": 1, "high": 9})
    with pytest.raises(FieldNotVariable, match="only add values"):
        search_space.extend_space(make_space(a=[1]), {"c": [1]})
