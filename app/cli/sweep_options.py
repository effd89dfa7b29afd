"""`--over FIELD=VALUES`: the search space of a sweep, as `app.sweeps.search_space` parses it."""

from collections.abc import Iterable
from typing import Annotated

import typer

from app.cli.errors import Misuse
from app.cli.responses import Json
from app.cli.spec_flags import FLAGS, option_names
from app.sweeps import search_space

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
        try:
            space[place] = search_space.read(place, values.strip())
        except ValueError as error:
            raise _wrong(text, str(error)) from error
    return space


def place_of(name: str) -> str:
    """The field of a job that an option's name, or the last part of the field, stands for."""
    wanted = name.strip().lstrip("-").replace("_", "-")
    for place, flag in FLAGS.items():
        names = [each.lstrip("-") for each in option_names(flag)]
        if wanted in (*names, place.rpartition(".")[2].replace("_", "-")):
            return place
    return name.strip()


def _wrong(text: str, why: str) -> Misuse:
    return Misuse(f"--over {text} cannot be read: {why}", "wrong_space")
