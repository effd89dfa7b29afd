"""The clock of the database. It is the only clock whose times are compared across processes.

Times are stored as seconds since 1970 UTC in double precision, so that the same arithmetic works on
both databases.
"""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement


class now(FunctionElement[float]):  # noqa: N801 - named like the SQL function
    """The current time, not the start of the transaction."""

    type = Double()
    inherit_cache = True
    name = "now"


@compiles(now, "sqlite")
def _compile_sqlite(_element: Any, _compiler: Any, **_: Any) -> str:
    return "unixepoch('subsec')"


@compiles(now, "postgresql")
def _compile_postgresql(_element: Any, _compiler: Any, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def read_clock(session: Session) -> float:
    """Return the current time in seconds since 1970."""
    seconds: float = session.scalars(now().select()).one()
    return seconds
