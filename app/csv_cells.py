"""Cells of CSV files that people open with a spreadsheet."""

from typing import Any

# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection"), wide forms too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def inert(value: Any) -> Any:
    """The value; a text that would be run as a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
