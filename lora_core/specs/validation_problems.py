"""Readable messages for specs that fail validation.

pydantic includes the union member in the location of an error and words messages in terms of inputs
and its own types. Here locations are written as in the spec, and messages in plain words. The error
codes are pydantic's, which are stable.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lora_core.specs.fields import PATTERN_DESCRIPTIONS

ModelType = type[BaseModel]
PydanticError = Mapping[str, Any]  # one of `ValidationError.errors()`

_MAX_MESSAGE, _MAX_NAME = 300, 64  # characters
_TYPE_NAMES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "uuid_type": "an id",
}
_REQUIREMENTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "int_parsing": lambda _: "be an integer",
    "float_parsing": lambda _: "be a number",
    "bool_parsing": lambda _: "be true or false",
    "uuid_parsing": lambda _: "be an id: 32 hexadecimal digits in five groups",
    "finite_number": lambda _: "be a finite number",
    "greater_than": lambda limits: f"be greater than {_number(limits['gt'])}",
    "greater_than_equal": lambda limits: f"be at least {_number(limits['ge'])}",
    "less_than": lambda limits: f"be less than {_number(limits['lt'])}",
    "less_than_equal": lambda limits: f"be at most {_number(limits['le'])}",
    "string_too_short": lambda limits: f"have at least {limits['min_length']} characters",
    "string_too_long": lambda limits: f"have at most {limits['max_length']} characters",
    "too_short": lambda limits: f"have at least {limits['min_length']} entries",
    "too_long": lambda limits: f"have at most {limits['max_length']} entries",
    "string_pattern_mismatch": lambda limits: PATTERN_DESCRIPTIONS.get(
        limits["pattern"], f"match the pattern {limits['pattern']}"
    ),
    "enum": lambda choices: f"be {choices['expected']}",
    "literal_error": lambda choices: f"be {choices['expected']}",
    "union_tag_invalid": lambda choices: f"be one of {choices['expected_tags']}",
}


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One invalid field. `code` is pydantic's error type."""

    at: str
    code: str
    message: str


def first_problem_location_and_message(error: ValidationError, model: ModelType) -> tuple[str, str]:
    """Return the location of the first error, such as `data.source`, and its message."""
    first = field_problems(error.errors(include_url=False), model)[0]
    return first.at, first.message


def field_problems(errors: Iterable[PydanticError], model: ModelType | None) -> list[FieldProblem]:
    """Return one problem per field for the errors that pydantic found in a model of this type.

    Errors that merely follow from an error further inside are omitted, such as an empty list whose
    entries are invalid.
    """
    by_location: dict[str, list[tuple[PydanticError, Any]]] = {}
    for error in errors:
        at, container = _locate(error, model)
        by_location.setdefault(at, []).append((error, container))
    parents = {at[:end] for at in by_location for end, sign in enumerate(at) if sign == "."}
    return [
        FieldProblem(at, found[0][0]["type"], _shorten(_message(at, found), _MAX_MESSAGE))
        for at, found in by_location.items()
        if at not in parents
    ]


def _locate(error: PydanticError, model: ModelType | None) -> tuple[str, Any]:
    """Return the location as written in the spec, such as `method.r`, and the type around it."""
    names: list[str] = []
    annotation: Any = model
    container = None
    for part in error["loc"]:
        members = _union_members(annotation)
        if len(members) > 1:  # the location part is the tag of a union member, not a name
            annotation = next((member for member in members if _has_tag(member, part)), None)
        elif part != "[key]":  # "[key]" marks an error of the key itself
            container = members[0] if members else None
            annotation = _child_annotation(container, part)
            names.append(str(part))
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names.append(error["ctx"]["discriminator"].strip("'"))
    return ".".join(_shorten(name, _MAX_NAME) for name in names), container


def _union_members(annotation: Any) -> list[Any]:
    """Return the possible types, without None."""
    if get_origin(annotation) is Annotated:
        return _union_members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for member in get_args(annotation) for each in _union_members(member)]
    return [] if annotation in (None, NoneType) else [annotation]


def _has_tag(member: Any, tag: Any) -> bool:
    return any(get_args(field.annotation) == (tag,) for field in _fields(member).values())


def _child_annotation(annotation: Any, part: Any) -> Any:
    """Return the type of a field, key or index of a type."""
    if part in _fields(annotation):
        return _fields(annotation)[part].annotation
    items = [each for each in get_args(annotation) if each is not ...]
    return items[-1] if items else None


def _fields(model: Any) -> Mapping[str, Any]:
    return model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}


def _message(at: str, errors: list[tuple[PydanticError, Any]]) -> str:
    first, container = errors[0]
    match first["type"]:
        case "missing" | "union_tag_not_found":
            return "is required"
        case "extra_forbidden":
            return _unknown_field(at.rpartition(".")[2], list(_fields(container)))
        case code if code not in _TYPE_NAMES and code not in _REQUIREMENTS:
            return str(first["msg"]).removeprefix("Value error, ")
    requirements = dict.fromkeys(_requirement(error) for error, _ in errors)
    message = "must " + " or ".join(requirements).replace(" or be ", " or ")
    if all(error["type"] in _TYPE_NAMES for error, _ in errors):
        message += _describe_input(first.get("input"))
    return message


def _requirement(error: PydanticError) -> str:
    code, limits = error["type"], error.get("ctx", {})
    if code in _TYPE_NAMES:
        return f"be {_TYPE_NAMES[code]}"
    if limits.get("min_length") == 1:
        return "not be empty"
    return _REQUIREMENTS[code](limits) if code in _REQUIREMENTS else str(error["msg"])


def _unknown_field(name: str, known: list[str]) -> str:
    if close := difflib.get_close_matches(name, known, n=1):
        return f"unknown field (did you mean {close[0]}?)"
    return "unknown field" + (f" (known fields: {', '.join(known)})" if known else "")


def _describe_input(given: Any) -> str:
    """Return the type of the invalid input. The input itself is not repeated."""
    match given:
        case None:
            return ", not null"
        case bool():
            return ", not true or false"
        case str():
            return ", not a string"
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


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
