"""Search space of a sweep: which fields of a job vary, and over which values; presets."""

import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StrictBool
from pydantic_core import PydanticCustomError

from app.sweeps.errors import (
    FieldNotVariable,
    LogRangeNotPositive,
    RangeNeedsCount,
    RangeReversed,
    SearchSpaceTooSmall,
    TooManyTrialsInSweep,
)
from lora_core.specs.fields import Float, FrozenModel, Int
from lora_core.specs.method import LayerRole

MAX_TRIALS = 5_000
SIGNIFICANT_DIGITS = 6  # of a float drawn from a range
_MAX_SHUFFLED = 20_000  # trials; up to this size a grid is shuffled instead of drawn from
_MAX_DRAWS_FACTOR = 10  # draws per trial, on average, before a space counts as exhausted

_ExactInt = Annotated[Int, Field(ge=-(2**53), le=2**53)]  # exactly representable as a float
TrialSettings = dict[str, Any]  # values of one trial by field, such as {"method.r": 8}


class Range(FrozenModel):
    """Numbers from `low` to `high`, both included. Integer bounds give integers."""

    low: _ExactInt | Float
    high: _ExactInt | Float
    log: StrictBool = Field(default=False, description="Uniform in the logarithm.")
    count: Int | None = Field(
        default=None, ge=2, le=MAX_TRIALS, description="Number of values in a grid search."
    )

    @property
    def is_integer(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def value_at(self, fraction: float, margin: float = 0.0) -> int | float:
        """Return the number at this fraction of the way from `low` to `high`, 0 to 1.

        The way is longer by `margin` at both ends; numbers there become `low` and `high`.
        """
        low, high = self.low - margin, self.high + margin
        if self.log:
            low, high = math.log(low), math.log(high)
        number = low + fraction * (high - low)
        if self.log:
            number = math.exp(number)
        if self.is_integer:
            return min(max(round(number), self.low), self.high)
        return self.rounded(number)

    def rounded(self, number: float) -> float:
        """Round to `SIGNIFICANT_DIGITS` and clip to the bounds."""
        return float(min(max(float(f"{number:.{SIGNIFICANT_DIGITS}g}"), self.low), self.high))


_ValueList = Annotated[list[JsonValue], Field(min_length=1, max_length=MAX_TRIALS)]


def canonical_json(value: Any) -> str:
    """Return a string that is the same for equal values only, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True)


def _reject_repeated_values(dimensions: dict[str, Any]) -> dict[str, Any]:
    for name, values in dimensions.items():
        distinct = {canonical_json(value) for value in values} if isinstance(values, list) else ()
        if isinstance(values, list) and len(distinct) < len(values):
            message = "{field} lists the same value twice"
            raise PydanticCustomError("repeated_value", message, {"field": name})
    return dimensions


Dimensions = Annotated[
    dict[str, _ValueList | Range],
    Field(min_length=1, max_length=32),
    AfterValidator(_reject_repeated_values),
]


class SearchSpace(FrozenModel):
    """The values or the range of each field, in order."""

    dimensions: Dimensions

    @classmethod
    def from_pairs(cls, pairs: Sequence[Any]) -> "SearchSpace":
        """Restore a space from `to_pairs`."""
        return cls.model_validate({"dimensions": dict(pairs)})

    def to_pairs(self) -> list[Any]:
        """Return [field, values or range] pairs: PostgreSQL does not keep the order of objects."""
        dimensions = self.model_dump(mode="json")["dimensions"]
        return [[field, dimensions[field]] for field in self.fields]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.dimensions)


def validate_ranges(space: SearchSpace) -> None:
    """Raise `RangeReversed` or `LogRangeNotPositive` for the first invalid range."""
    for field, values in space.dimensions.items():
        if isinstance(values, Range):
            if not values.low < values.high:
                raise RangeReversed(field=field, low=values.low, high=values.high, at="space")
            if values.log and values.low <= 0:
                raise LogRangeNotPositive(field=field, low=values.low, at="space")


def grid_size(space: SearchSpace) -> int | None:
    """Return the number of trials in the grid, or None if a range is continuous."""
    counts = [_value_count(values) for values in space.dimensions.values()]
    return None if None in counts else math.prod(count for count in counts if count)


def iterate_grid_settings(space: SearchSpace) -> Iterator[TrialSettings]:
    """Iterate over all combinations; the last field varies fastest.

    Raises `RangeNeedsCount` and `TooManyTrialsInSweep`.
    """
    for field, values in space.dimensions.items():
        if _value_count(values) is None:
            raise RangeNeedsCount(field=field, at="space")
    size = grid_size(space) or 0
    if size > MAX_TRIALS:
        raise TooManyTrialsInSweep(trials=size, limit=MAX_TRIALS, at="space")
    return _all_settings(space)


def sample_settings(
    space: SearchSpace, count: int, *, seed: int, exclude: Sequence[TrialSettings] = ()
) -> list[TrialSettings]:
    """Draw `count` different settings at random, none of them in `exclude`.

    A seed always gives the same settings, and a smaller count gives the first of a larger one.
    Raises `SearchSpaceTooSmall`.
    """
    generator = random.Random(seed)  # noqa: S311 - must be reproducible, not secret
    seen = {canonical_json(settings) for settings in exclude}
    drawn: list[TrialSettings] = []
    for settings in _random_settings(space, generator):
        if len(drawn) == count:
            break
        if canonical_json(settings) not in seen:
            seen.add(canonical_json(settings))
            drawn.append(settings)
    if len(drawn) < count:
        raise SearchSpaceTooSmall(there=len(seen), asked=len(exclude) + count, at="strategy.trials")
    return drawn


def one_at_a_time_settings(space: SearchSpace) -> Iterator[TrialSettings]:
    """Iterate over settings in which one field takes each of its values or bounds in turn.

    The other fields keep their first value. These settings are validated before a search whose
    trials are not known in advance.
    """
    first = {field: _values_or_bounds(values)[0] for field, values in space.dimensions.items()}
    yield first
    for field, values in space.dimensions.items():
        for value in _values_or_bounds(values)[1:]:
            yield {**first, field: value}


def extend_space(space: SearchSpace, added: Mapping[str, list[JsonValue] | Range]) -> SearchSpace:
    """Return the space with these values added; a range replaces what the field had before.

    Raises `FieldNotVariable` for a field that the space does not have.
    """
    dimensions: dict[str, Any] = dict(space.dimensions)
    for field, values in added.items():
        if field not in dimensions:
            reason = f"an extension can only add values to {', '.join(dimensions)}"
            raise FieldNotVariable(field=field, reason=reason, at="space")
        old = dimensions[field]
        if isinstance(old, list) and isinstance(values, list):
            present = {canonical_json(value) for value in old}
            values = [*old, *(value for value in values if canonical_json(value) not in present)]
        dimensions[field] = values
    return SearchSpace(dimensions=dimensions)


def apply_settings(job: Mapping[str, Any], settings: TrialSettings) -> dict[str, Any]:
    """Return the job description with these settings, outer fields (`method`) applied first."""
    result: dict[str, Any] = dict(job)
    for field in sorted(settings, key=lambda name: name.count(".")):
        *parents, last = field.split(".")
        node = result
        for name in parents:
            child = node.get(name)
            node[name] = dict(child) if isinstance(child, Mapping) else {}
            node = node[name]
        node[last] = settings[field]
    return result


def _value_count(values: list[JsonValue] | Range) -> int | None:
    if isinstance(values, list):
        return len(values)
    if values.count:
        return len(_grid_values(values))
    return int(values.high) - int(values.low) + 1 if values.is_integer and not values.log else None


def _grid_values(values: list[JsonValue] | Range) -> list[Any]:
    if isinstance(values, list):
        return values
    count = values.count or int(values.high) - int(values.low) + 1
    return list(dict.fromkeys(values.value_at(i / (count - 1)) for i in range(count)))


def _values_or_bounds(values: list[JsonValue] | Range) -> list[Any]:
    return values if isinstance(values, list) else [values.value_at(0.0), values.value_at(1.0)]


def _random_settings(space: SearchSpace, generator: random.Random) -> Iterator[TrialSettings]:
    """Iterate over settings in random order: a shuffled grid if it is small, else random draws.

    Random draws may repeat.
    """
    size = grid_size(space)
    if size is not None and size <= _MAX_SHUFFLED:
        shuffled = list(_all_settings(space))
        generator.shuffle(shuffled)
        yield from shuffled
        return
    for _ in range(_MAX_DRAWS_FACTOR * MAX_TRIALS):
        yield {
            field: _random_value(values, generator) for field, values in space.dimensions.items()
        }


def _all_settings(space: SearchSpace) -> Iterator[TrialSettings]:
    axes = [_grid_values(values) for values in space.dimensions.values()]
    return (dict(zip(space.fields, values, strict=True)) for values in itertools.product(*axes))


def _random_value(values: list[JsonValue] | Range, generator: random.Random) -> Any:
    if isinstance(values, list):
        return generator.choice(values)
    # All integers have an interval of length 1, so that the bounds are not drawn half as often.
    return values.value_at(generator.random(), margin=0.5 if values.is_integer else 0.0)


# Text notation of values, as typed on the command line and in the form:
#
# 1,2,4                            values: JSON where they parse, else text
# query+value,all                  lists are joined with +
# [1,2,4]                          or the whole list as JSON
# 0.0..0.3                         a range
# log:1e-4..1e-2x5                 a logarithmic range with five values
#
# Whether the values are valid is checked by the service.

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})(?:x(\d+))?")
_LOOKS_LIKE_RANGE = re.compile(r"log:.*|[-+]?\.?\d.*\.\..*")
_LIST_FIELDS = ("method.targets", "method.layers", "method.ngram_range")
ALL_ROLES = [role.value for role in LayerRole]


def parse_values_or_range(field: str, text: str) -> Any:
    """Parse a list of values, or a range as an object. Raises `ValueError` with the reason."""
    if match := _RANGE.fullmatch(text):
        log, low, high, count = match.groups()
        bounds = {"low": _parse_number(low), "high": _parse_number(high)}
        return bounds | ({"log": True} if log else {}) | ({"count": int(count)} if count else {})
    if _LOOKS_LIKE_RANGE.fullmatch(text):
        raise ValueError("a range is LOW..HIGH, optionally with log: in front and xCOUNT behind")
    whole = parse_json_or_text(text)
    if isinstance(whole, list):
        return whole
    items = [item.strip() for item in text.split(",")]
    if "" in items:
        raise ValueError("a value is empty")
    return [
        _parse_list_item(item) if field in _LIST_FIELDS else parse_json_or_text(item)
        for item in items
    ]


def parse_json_or_text(text: str) -> Any:
    """Parse JSON, or return the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def format_values_or_range(field: str, values: Any) -> str:
    """Format a list of values or a range so that `parse_values_or_range` restores it."""
    if isinstance(values, Mapping):
        count = values.get("count")
        bounds = f"{values['low']}..{values['high']}"
        return f"{'log:' if values.get('log') else ''}{bounds}{f'x{count}' if count else ''}"
    short = ",".join(format_value(value) for value in values)
    one_line = "\n" not in short and short == short.strip()
    try:
        round_trips = one_line and parse_values_or_range(field, short) == values
    except ValueError:
        round_trips = False
    return short if round_trips else json.dumps(values)


def format_value(value: Any) -> str:
    """Format one value: `query+value`, `all` for every role, JSON for what is not text."""
    if isinstance(value, list):
        return "all" if value == ALL_ROLES else "+".join(format_value(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parse_list_item(text: str) -> Any:
    """Parse `query+value`, `all` (every role) or `null`."""
    if text == "all":
        return list(ALL_ROLES)
    return None if text == "null" else [parse_json_or_text(item) for item in text.split("+")]


def _parse_number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


# -- Predefined sweeps, as request bodies of POST /v1/sweeps --------------------------------------


PresetName = Literal["seed-grid"]

# `03_gridsearch.py` of the "LoRA from scratch" lessons, 576 trials; the last field varies fastest.
SEED_GRID: Mapping[str, Any] = {
    "job": {
        "preset": "seed",
        "method": {"type": "lora"},
        "data": {"source": "imdb"},
        "result": {"train_metrics": True},  # results.txt includes the training accuracy
    },
    "space": {
        "method.alpha": [1, 4, 8, 16, 32, 64],
        "method.r": [1, 2, 4, 8, 16, 32],
        # Query and value are always adapted; key, projection and mlp are on or off.
        "method.targets": [
            ["query", "value"],
            ["query", "value", "mlp"],
            ["query", "value", "projection"],
            ["query", "value", "projection", "mlp"],
            ["query", "key", "value"],
            ["query", "key", "value", "mlp"],
            ["query", "key", "value", "projection"],
            ["query", "key", "value", "projection", "mlp"],
        ],
        "method.head": ["frozen", "lora"],
    },
    "strategy": {"type": "grid"},
}

PRESETS: Mapping[PresetName, Mapping[str, Any]] = {"seed-grid": SEED_GRID}
