"""What a field varies over, as it is typed.

    1,2,4                            values: JSON where they parse, else text
    query+value,all                  lists are joined with +
    [1,2,4]                          or all of it is a JSON list
    0.0..0.3                         a range
    log:1e-4..1e-2x5                 spread in the logarithm, five of it

What the values mean is for the service to say.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from lora_core.specs.method import Role

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
