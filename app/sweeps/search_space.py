"""The space of a sweep: which fields of a job vary, and over what."""

import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue, StrictBool
from pydantic_core import PydanticCustomError

from app.sweeps.errors import (
    RangeNeedsCount,
    RangeNotPositive,
    RangeUpsideDown,
    SpaceTooSmall,
    TooManyCells,
    UnknownField,
)
from lora_core.specs.frozen import Float, Frozen, Int
from lora_core.specs.method import Role

MOST_CELLS = 5_000
DIGITS = 6  # that count, of a number out of a range
SMALL = 20_000  # cells: such a space is shuffled as a whole
TRIES = 10  # on average at a cell that is not drawn yet

Whole = Annotated[Int, Field(ge=-(2**53), le=2**53)]  # a float has room for it
Settings = dict[str, Any]  # a field of the job, such as `method.r`, to its value in one cell


class Range(Frozen):
    """Numbers from `low` to `high`, both included. Whole ends give whole numbers."""

    low: Whole | Float
    high: Whole | Float
    log: StrictBool = False  # evenly spread in the logarithm
    count: Int | None = Field(default=None, ge=2, le=MOST_CELLS)  # of values, in a grid

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> int | float:
        """The number at this share of the way, 0 to 1."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            number = math.exp(low + share * (high - low))
        else:
            number = self.low + share * (self.high - self.low)
        return min(max(round(number), self.low), self.high) if self.whole else self.rounded(number)

    def rounded(self, number: float) -> float:
        """To `DIGITS`, and not beyond the ends."""
        return float(min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high))


Values = Annotated[list[JsonValue], Field(min_length=1, max_length=MOST_CELLS)]


def named(value: Any) -> str:
    """The same for equal values, and only for them."""
    return json.dumps(value, sort_keys=True)


def _each_once(dimensions: dict[str, Any]) -> dict[str, Any]:
    for name, values in dimensions.items():
        if isinstance(values, list) and len({named(each) for each in values}) < len(values):
            message = "each value of {field} may stand once"
            raise PydanticCustomError("repeated_value", message, {"field": name})
    return dimensions


Dimensions = Annotated[
    dict[str, Values | Range], Field(min_length=1, max_length=32), AfterValidator(_each_once)
]


class Space(Frozen):
    """Dimensions by field, in their order."""

    dimensions: Dimensions

    @classmethod
    def of(cls, kept: Sequence[Any]) -> "Space":
        """What `kept` gave."""
        return cls.model_validate({"dimensions": dict(kept)})

    def kept(self) -> list[Any]:
        """As a list of fields with what they vary over: PostgreSQL forgets the order of objects."""
        told = self.model_dump(mode="json")["dimensions"]
        return [[field, told[field]] for field in self.fields]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.dimensions)


def check_ranges(space: Space) -> None:
    """Raises `RangeUpsideDown`, `RangeNotPositive`."""
    for field, values in space.dimensions.items():
        if isinstance(values, Range):
            if not values.low < values.high:
                raise RangeUpsideDown(field=field, low=values.low, high=values.high, at="space")
            if values.log and values.low <= 0:
                raise RangeNotPositive(field=field, low=values.low, at="space")


def size(space: Space) -> int | None:
    """How many cells a grid over it has; None: it has no end of them."""
    counts = [_count(values) for values in space.dimensions.values()]
    return None if None in counts else math.prod(count for count in counts if count)


def grid(space: Space) -> Iterator[Settings]:
    """Every cell; the last field changes first. Raises `RangeNeedsCount`, `TooManyCells`."""
    for field, values in space.dimensions.items():
        if _count(values) is None:
            raise RangeNeedsCount(field=field, at="space")
    cells = size(space) or 0
    if cells > MOST_CELLS:
        raise TooManyCells(cells=cells, limit=MOST_CELLS, at="space")
    return _product(space)


def sample(
    space: Space, cells: int, *, seed: int, taken: Sequence[Settings] = ()
) -> list[Settings]:
    """So many cells at random, all different and none of those `taken`.

    The same seed draws the same cells, and the first of many are those of few. Raises
    `SpaceTooSmall`.
    """
    source = random.Random(seed)  # noqa: S311 - drawn again, not to be guarded
    seen = {named(cell) for cell in taken}
    found: list[Settings] = []
    for cell in _drawn(space, source):
        if len(found) == cells:
            break
        if named(cell) not in seen:
            seen.add(named(cell))
            found.append(cell)
    if len(found) < cells:
        raise SpaceTooSmall(there=len(seen), asked=len(taken) + cells, at="strategy.cells")
    return found


def ends(space: Space) -> Iterator[Settings]:
    """For each field its values, or the two ends of its range, beside the first ones of the rest:
    what is tried before anything runs where the cells are not known.
    """
    first = {field: _ends(values)[0] for field, values in space.dimensions.items()}
    yield first
    for field, values in space.dimensions.items():
        for value in _ends(values)[1:]:
            yield {**first, field: value}


def wider(space: Space, more: Mapping[str, list[JsonValue] | Range]) -> Space:
    """With more values; a range takes the place of what was there. Raises `UnknownField`."""
    dimensions: dict[str, Any] = dict(space.dimensions)
    for field, values in more.items():
        if field not in dimensions:
            reason = f"an extension adds values to {', '.join(dimensions)}, and no field"
            raise UnknownField(field=field, reason=reason, at="space")
        old = dimensions[field]
        if isinstance(old, list) and isinstance(values, list):
            there = {named(each) for each in old}
            values = [*old, *(each for each in values if named(each) not in there)]
        dimensions[field] = values
    return Space(dimensions=dimensions)


def applied(job: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The description of a job with these settings in it, outer fields first."""
    made: dict[str, Any] = dict(job)
    for field in sorted(settings, key=lambda name: name.count(".")):
        *outer, last = field.split(".")
        here = made
        for name in outer:
            inner = here.get(name)
            here[name] = dict(inner) if isinstance(inner, Mapping) else {}
            here = here[name]
        here[last] = settings[field]
    return made


def _count(values: list[JsonValue] | Range) -> int | None:
    if isinstance(values, list):
        return len(values)
    whole = int(values.high) - int(values.low) + 1 if values.whole and not values.log else None
    return values.count or whole


def _axis(values: list[JsonValue] | Range) -> list[Any]:
    if isinstance(values, list):
        return values
    count = _count(values) or 0
    return list(dict.fromkeys(values.at(i / (count - 1)) for i in range(count)))


def _ends(values: list[JsonValue] | Range) -> list[Any]:
    return values if isinstance(values, list) else [values.at(0.0), values.at(1.0)]


def _drawn(space: Space, source: random.Random) -> Iterator[Settings]:
    """All cells of a small space in any order; of a large one as many as it takes, repeated ones
    too.
    """
    there = size(space)
    if there is not None and there <= SMALL:
        cells = list(_product(space))
        source.shuffle(cells)
        yield from cells
        return
    for _ in range(TRIES * MOST_CELLS):
        yield {field: _draw(values, source) for field, values in space.dimensions.items()}


def _product(space: Space) -> Iterator[Settings]:
    axes = [_axis(values) for values in space.dimensions.values()]
    return (dict(zip(space.fields, cell, strict=True)) for cell in itertools.product(*axes))


def _draw(values: list[JsonValue] | Range, source: random.Random) -> Any:
    return source.choice(values) if isinstance(values, list) else values.at(source.random())


# MERGED app.sweeps.search_space
# What a field varies over, as it is typed.
#
# 1,2,4                            values: JSON where they parse, else text
# query+value,all                  lists are joined with +
# [1,2,4]                          or all of it is a JSON list
# 0.0..0.3                         a range
# log:1e-4..1e-2x5                 spread in the logarithm, five of it
#
# What the values mean is for the service to say.

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"(log:)?({NUMBER})\.\.({NUMBER})(?:x(\d+))?")
MEANT_AS_RANGE = re.compile(r"log:.*|[-+]?\.?\d.*\.\..*")
LISTS = ("method.targets", "method.layers", "method.ngram_range")
ALL_ROLES = [role.value for role in Role]


def read(field: str, typed: str) -> Any:
    """A list of values, or a range as an object. Raises `ValueError`, which says what is wrong."""
    if found := RANGE.fullmatch(typed):
        log, low, high, count = found.groups()
        ends = {"low": _number(low), "high": _number(high)}
        return ends | ({"log": True} if log else {}) | ({"count": int(count)} if count else {})
    if MEANT_AS_RANGE.fullmatch(typed):
        raise ValueError("a range is LOW..HIGH, with log: before it and xCOUNT behind it or not")
    whole = value(typed)
    if isinstance(whole, list):
        return whole
    parts = [part.strip() for part in typed.split(",")]
    if "" in parts:
        raise ValueError("a value is empty")
    return [_list(part) if field in LISTS else value(part) for part in parts]


def value(typed: str) -> Any:
    """As JSON, or the text itself where it is none."""
    try:
        return json.loads(typed)
    except (ValueError, RecursionError):
        return typed


def written(field: str, over: Any) -> str:
    """How a list of values, or a range, would be typed: `read` gives the same again."""
    if isinstance(over, Mapping):
        count = over.get("count")
        ends = f"{over['low']}..{over['high']}"
        return f"{'log:' if over.get('log') else ''}{ends}{f'x{count}' if count else ''}"
    short = ",".join(text(each) for each in over)
    plain = "\n" not in short and short == short.strip()
    try:
        return short if plain and read(field, short) == over else json.dumps(over)
    except ValueError:
        return json.dumps(over)


def text(one: Any) -> str:
    """One value."""
    if isinstance(one, list):
        return "all" if one == ALL_ROLES else "+".join(text(part) for part in one)
    return one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)


def _list(typed: str) -> Any:
    """`query+value`; `all` roles; `null`."""
    if typed == "all":
        return list(ALL_ROLES)
    return None if typed == "null" else [value(each) for each in typed.split("+")]


def _number(typed: str) -> int | float:
    return int(typed) if re.fullmatch(r"[-+]?\d+", typed) else float(typed)
