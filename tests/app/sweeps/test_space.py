"""Spaces: what they hold, in which order, and what is refused."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from app.sweeps import search_space
from app.sweeps.errors import (
    RangeNeedsCount,
    RangeNotPositive,
    RangeUpsideDown,
    SpaceTooSmall,
    TooManyCells,
    UnknownField,
)
from app.sweeps.search_space import Range, Space


def over(**dimensions: Any) -> Space:
    return Space.model_validate({"dimensions": dimensions})


def test_a_grid_is_every_combination_and_the_last_field_changes_first() -> None:
    cells = list(search_space.grid(over(a=[1, 2], b=["x", "y"])))
    assert cells == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"low": 1, "high": 5}, [1, 2, 3, 4, 5]),
        ({"low": 0.0, "high": 1.0, "count": 3}, [0.0, 0.5, 1.0]),
        ({"low": 1e-4, "high": 1e-2, "log": True, "count": 3}, [1e-4, 1e-3, 1e-2]),
        ({"low": 1, "high": 64, "log": True, "count": 7}, [1, 2, 4, 8, 16, 32, 64]),
        ({"low": 1, "high": 3, "count": 9}, [1, 2, 3]),  # no number twice
    ],
)
def test_the_values_of_a_range(given: dict[str, Any], values: list[float]) -> None:
    found = [cell["a"] for cell in search_space.grid(over(a=given))]
    assert found == pytest.approx(values)
    assert all(type(x) is type(y) for x, y in zip(found, values, strict=True))


def test_a_logarithmic_range_is_drawn_evenly_in_its_logarithm() -> None:
    drawn = search_space.sample(over(a={"low": 1e-4, "high": 1e-2, "log": True}), 2000, seed=0)
    below = sum(cell["a"] < 1e-3 for cell in drawn) / 2000
    assert below == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))
    assert all(1e-4 <= cell["a"] <= 1e-2 for cell in drawn)


def test_a_sample_is_the_same_each_time_and_has_no_cell_twice() -> None:
    wide = over(a={"low": 0.0, "high": 1.0}, b=[1, 2, 3])
    few, many = search_space.sample(wide, 10, seed=3), search_space.sample(wide, 40, seed=3)
    assert few == many[:10]
    assert len({search_space.named(cell) for cell in many}) == 40
    assert search_space.sample(wide, 10, seed=4) != few
    more = search_space.sample(wide, 10, seed=3, taken=few)
    assert not {search_space.named(cell) for cell in more} & {
        search_space.named(cell) for cell in few
    }


def test_a_sample_can_be_the_whole_space_and_no_more() -> None:
    small = over(a=[1, 2, 3], b=[1, 2])
    assert len(search_space.sample(small, 6, seed=0)) == 6
    with pytest.raises(SpaceTooSmall, match="only 6 different cells, and 7"):
        search_space.sample(small, 7, seed=0)


def test_a_grid_of_ten_million_cells_is_refused_at_once() -> None:
    many = list(range(100))
    with pytest.raises(TooManyCells, match="10,000,000 cells, and a sweep may have 5,000"):
        search_space.grid(over(a=many, b=many, c=many, d=list(range(10))))


def test_a_grid_needs_an_end_of_values() -> None:
    with pytest.raises(RangeNeedsCount, match="'a'"):
        search_space.grid(over(a={"low": 0.0, "high": 1.0}))


@pytest.mark.parametrize("ends", [(2, 1), (1, 1), (0.5, 0.25)])
def test_a_range_upside_down(ends: tuple[float, float]) -> None:
    with pytest.raises(RangeUpsideDown, match="must be less than"):
        search_space.check_ranges(over(a={"low": ends[0], "high": ends[1]}))


@pytest.mark.parametrize("low", [0, -1.0])
def test_a_logarithmic_range_begins_above_zero(low: float) -> None:
    with pytest.raises(RangeNotPositive, match="more than 0"):
        search_space.check_ranges(over(a={"low": low, "high": 1.0, "log": True}))


@pytest.mark.parametrize(
    "dimensions",
    [{}, {"a": []}, {"a": [1, 1]}, {"a": {"low": 1}}, {"a": {"low": 1, "high": "9"}}, {"a": 3}],
)
def test_what_is_no_space(dimensions: Any) -> None:
    with pytest.raises(ValidationError):
        Space.model_validate({"dimensions": dimensions})


def test_settings_go_into_the_description_outer_fields_first() -> None:
    job = {"method": {"type": "lora", "r": 8}, "base": "b"}
    settings = {"optim.learning_rate": 0.1, "method.r": 2, "method": {"type": "lora", "alpha": 1.0}}
    assert search_space.applied(job, settings) == {
        "method": {"type": "lora", "alpha": 1.0, "r": 2},
        "base": "b",
        "optim": {"learning_rate": 0.1},
    }
    assert job == {"method": {"type": "lora", "r": 8}, "base": "b"}


def test_the_ends_try_each_value_once_beside_the_first_ones() -> None:
    tried = list(search_space.ends(over(a=[1, 2, 3], b={"low": 0.5, "high": 2.0})))
    assert tried == [
        {"a": 1, "b": 0.5}, {"a": 2, "b": 0.5}, {"a": 3, "b": 0.5}, {"a": 1, "b": 2.0},
    ]  # fmt: skip


def test_a_wider_space_keeps_its_order_and_gets_no_new_field() -> None:
    wide = search_space.wider(
        over(a=[1, 2], b={"low": 1, "high": 2}), {"a": [2, 3], "b": Range(low=1, high=9)}
    )
    assert wide == over(a=[1, 2, 3], b={"low": 1, "high": 9})
    with pytest.raises(UnknownField, match="no field"):
        search_space.wider(over(a=[1]), {"c": [1]})
