"""`--over FIELD=VALUES`: the space of a sweep as it is typed.

    r=1,2,4                          values: JSON where they parse, else text
    targets=query+value,all          lists are joined with +
    r=[1,2,4]                        or all of it is a JSON list
    dropout=0..0.3                   a range
    lr=log:1e-4..1e-2x5              spread in the logarithm, five of it

What the fields and values mean is for the service to say.
"""

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from app.cli.answers import Json
from app.cli.errors import Misuse
from app.cli.spec_flags import FLAGS, option_names
from lora_core.specs.method import Role

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"(log:)?({NUMBER})\.\.({NUMBER})(?:x(\d+))?")
MEANT_AS_RANGE = re.compile(r"log:.*|[-+]?\.?\d.*\.\..*")
LISTS = ("method.targets", "method.layers")

Over = Annotated[
    list[str] | None,
    typer.Option(
        "--over",
        metavar="FIELD=VALUES",
        help="A field that varies, repeated: r=1,2,4; targets=query+value,all; a range "
        "lr=log:1e-4..1e-2x5 (log: and the count may be left out). FIELD is the name of an option "
        "or a whole field such as method.r.",
    ),
]


def read_space(texts: Iterable[str]) -> Json:
    """Values or range by field. Raises `Misuse`."""
    space: Json = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values.strip()):
            raise _wrong(text, "it is FIELD=VALUES, such as r=1,2,4")
        place = place_of(name)
        if place in space:
            raise _wrong(text, f"{place} varies already")
        space[place] = _dimension(place, values.strip(), text)
    return space


def place_of(name: str) -> str:
    """The field of a job that an option's name, or the last part of the field, stands for."""
    wanted = name.strip().lstrip("-").replace("_", "-")
    for place, flag in FLAGS.items():
        names = [each.lstrip("-") for each in option_names(flag)]
        if wanted in (*names, place.rpartition(".")[2].replace("_", "-")):
            return place
    return name.strip()


def _dimension(place: str, values: str, whole: str) -> Any:
    if found := RANGE.fullmatch(values):
        log, low, high, count = found.groups()
        ends = {"low": _number(low), "high": _number(high)}
        return ends | ({"log": True} if log else {}) | ({"count": int(count)} if count else {})
    if MEANT_AS_RANGE.fullmatch(values):
        raise _wrong(whole, "a range is LOW..HIGH, with log: before it and xCOUNT behind it or not")
    as_json = _json(values)
    if isinstance(as_json, list):
        return as_json
    parts = [part.strip() for part in values.split(",")]
    if "" in parts:
        raise _wrong(whole, "a value is empty")
    return [_list(part) if place in LISTS else _json(part) for part in parts]


def _list(text: str) -> Any:
    """`query+value`; `all` roles; `null`."""
    if text == "all":
        return [role.value for role in Role]
    return None if text == "null" else [_json(each) for each in text.split("+")]


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def _json(text: str) -> Any:
    """As JSON, or the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _wrong(text: str, why: str) -> Misuse:
    return Misuse(f"--over {text} cannot be read: {why}", "wrong_space")
