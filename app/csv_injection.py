"""Protection against formula injection in CSV files that people open in a spreadsheet."""

from typing import Any

# Prefixes that a spreadsheet reads as the start of a formula (OWASP, "CSV Injection"), including
# the full-width forms.
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def escape_formula(value: Any) -> Any:
    """Return the value, prefixed with an apostrophe if it is text that would run as a formula."""
    if isinstance(value, str) and value.startswith(FORMULA_PREFIXES):
        return f"'{value}"
    return value
