"""Which forms of a test `make test` runs; `make test-long` runs all of them."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return these values as parameters. All but those in `quick` are marked slow."""
    slow = pytest.mark.slow
    return [each if each in quick else pytest.param(each, marks=slow) for each in values]


DATABASES = ("sqlite", "postgresql")
# For fixtures named `database_kind`: what most tests check is decided in Python.
MOSTLY_SQLITE = slow_but(DATABASES, "sqlite")
# For tests whose SQL, or what two transactions see of each other, differs by database.
on_both_databases = pytest.mark.parametrize("database_kind", DATABASES)
on_sqlite_first = pytest.mark.parametrize("database_kind", MOSTLY_SQLITE)
