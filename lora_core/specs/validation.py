"""What is told of a description that does not fit: places as its author wrote them, plain words.

pydantic puts the arm of a union into the place of a fault, and speaks of inputs and of its own
types. Its codes for faults are stable, and stay.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lora_core.specs.patterns import SAID

Kind = type[BaseModel]
Error = Mapping[str, Any]  # one of `ValidationError.errors()`

_LONGEST, _LONGEST_NAME = 300, 64  # characters
_A_KIND = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "uuid_type": "an id",
}
_MUST: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "int_parsing": lambda _: "be a whole number",
    "float_parsing": lambda _: "be a number",
    "bool_parsing": lambda _: "be true or false",
    "uuid_parsing": lambda _: "be an id: 32 hexadecimal digits in five groups",
    "finite_number": lambda _: "be a finite number",
    "greater_than": lambda limits: f"be more than {_number(limits['gt'])}",
    "greater_than_equal": lambda limits: f"be at least {_number(limits['ge'])}",
    "less_than": lambda limits: f"be less than {_number(limits['lt'])}",
    "less_than_equal": lambda limits: f"be at most {_number(limits['le'])}",
    "string_too_short": lambda limits: f"have at least {limits['min_length']} characters",
    "string_too_long": lambda limits: f"have at most {limits['max_length']} characters",
    "too_short": lambda limits: f"have at least {limits['min_length']} entries",
    "too_long": lambda limits: f"have at most {limits['max_length']} entries",
    "string_pattern_mismatch": lambda limits: SAID.get(
        limits["pattern"], f"match the pattern {limits['pattern']}"
    ),
    "enum": lambda choices: f"be {choices['expected']}",
    "literal_error": lambda choices: f"be {choices['expected']}",
    "union_tag_invalid": lambda choices: f"be one of {choices['expected_tags']}",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One field that does not fit. `code` is pydantic's name for what is wrong."""

    at: str
    code: str
    message: str


def first_fault(error: ValidationError, kind: Kind) -> tuple[str, str]:
    """Where the first thing is wrong, such as `data.source`, and in which way."""
    first = faults(error.errors(include_url=False), kind)[0]
    return first.at, first.message


def faults(errors: Iterable[Error], kind: Kind | None) -> list[Fault]:
    """One for each field, of what pydantic found in a description of this kind.

    What only follows from a fault further in is left out: an empty list of wrong entries.
    """
    found: dict[str, list[tuple[Error, Any]]] = {}
    for error in errors:
        at, around = _place(error, kind)
        found.setdefault(at, []).append((error, around))
    parents = {at[:end] for at in found for end, sign in enumerate(at) if sign == "."}
    return [
        Fault(at, each[0][0]["type"], _capped(_message(at, each), _LONGEST))
        for at, each in found.items()
        if at not in parents
    ]


def _place(error: Error, kind: Kind | None) -> tuple[str, Any]:
    """As its author would write it, such as `method.r`; and the kind of what is around it."""
    names: list[str] = []
    here: Any = kind
    around = None
    for part in error["loc"]:
        arms = _arms(here)
        if len(arms) > 1:  # then this part is no name: it says which arm was tried
            here = next((arm for arm in arms if _is_tagged(arm, part)), None)
        elif part != "[key]":  # a mark that the key is meant, not what stands under it
            around = arms[0] if arms else None
            here = _within(around, part)
            names.append(str(part))
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names.append(error["ctx"]["discriminator"].strip("'"))
    return ".".join(_capped(name, _LONGEST_NAME) for name in names), around


def _arms(annotation: Any) -> list[Any]:
    """What this may be, other than null."""
    if get_origin(annotation) is Annotated:
        return _arms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for arm in get_args(annotation) for each in _arms(arm)]
    return [] if annotation in (None, NoneType) else [annotation]


def _is_tagged(arm: Any, tag: Any) -> bool:
    return any(get_args(field.annotation) == (tag,) for field in _fields(arm).values())


def _within(annotation: Any, part: Any) -> Any:
    """What is under a name, a key or an index of it."""
    if part in _fields(annotation):
        return _fields(annotation)[part].annotation
    items = [each for each in get_args(annotation) if each is not ...]
    return items[-1] if items else None


def _fields(kind: Any) -> Mapping[str, Any]:
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _message(at: str, found: list[tuple[Error, Any]]) -> str:
    first, around = found[0]
    match first["type"]:
        case "missing" | "union_tag_not_found":
            return "is missing, and has no default"
        case "extra_forbidden":
            return _unknown(at.rpartition(".")[2], list(_fields(around)))
        case code if code not in _A_KIND and code not in _MUST:
            return str(first["msg"]).removeprefix("Value error, ")
    musts = dict.fromkeys(_must(error) for error, _ in found)
    told = "must " + " or ".join(musts).replace(" or be ", " or ")
    if all(error["type"] in _A_KIND for error, _ in found):
        told += _instead(first.get("input"))
    return told


def _must(error: Error) -> str:
    code, limits = error["type"], error.get("ctx", {})
    if code in _A_KIND:
        return f"be {_A_KIND[code]}"
    if limits.get("min_length") == 1:
        return "not be empty"
    return _MUST[code](limits) if code in _MUST else str(error["msg"])


def _unknown(name: str, known: list[str]) -> str:
    if near := difflib.get_close_matches(name, known, n=1):
        return f"there is no such field; perhaps {near[0]} is meant"
    return "there is no such field" + (f"; there are {', '.join(known)}" if known else "")


def _instead(given: Any) -> str:
    """Of which kind it was: what was sent is not repeated."""
    match given:
        case None:
            return ", not null"
        case bool():
            return ", not true or false"
        case str():
            return ", not a text"
        case int():
            return ", not a number"
        case float():
            return ", not a number with a decimal point"
        case list():
            return ", not a list"
        case dict():
            return ", not an object"
    return ""


def _number(limit: float) -> str:
    return f"{int(limit) if limit == int(limit) else limit:,}"


def _capped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
