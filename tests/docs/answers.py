"""Compare the output shown in a document with the real output, except for numbers."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.docs.blocks import Block


def differs(block: Block, output: str) -> str | None:
    """The difference, or None.

    Text: every line, whatever the numbers and widths. JSON: every field that is shown is there
    and of the same kind; more fields may be there.
    """
    if block.language == "json":
        shown = json.loads(block.text)
        return None if any(has(real, shown) for real in values(output)) else "other fields or kinds"
    printed = {*map(outline, output.splitlines())}
    missing = [line for line in map(outline, block.text.splitlines()) if line not in printed]
    return f"no line {missing[0]!r}" if missing else None


def outline(line: str) -> str:
    """A line without its numbers, its ids and the widths of columns."""
    return re.sub(r"\s+", " ", re.sub(r"[0-9a-f]*\d[\w.,:-]*", "#", line)).strip()


def values(output: str) -> Iterator[Any]:
    """Every JSON object and list in the output."""
    decoder, place = json.JSONDecoder(), 0
    while begin := re.compile(r"[\[{]").search(output, place):
        try:
            value, place = decoder.raw_decode(output, begin.start())
            yield value
        except json.JSONDecodeError:
            place = begin.end()


def has(real: Any, shown: Any) -> bool:
    """Whether the real value contains the shown one, with values of the same types."""
    match shown:
        case dict():
            return isinstance(real, dict) and all(
                name in real and has(real[name], value) for name, value in shown.items()
            )
        case list():
            return isinstance(real, list) and all(
                any(has(one, value) for one in real) for value in shown
            )
        case bool() | str() | None:
            return type(real) is type(shown)
        case _:
            return isinstance(real, int | float) and not isinstance(real, bool)
