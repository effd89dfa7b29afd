"""Time as the database sees it. Only this clock is compared across processes.

Times are stored as seconds since 1970 UTC in double precision: the same arithmetic then works on
both databases, and a lease is one addition.
"""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement


class now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """The present moment, not the start of the transaction."""

    type = Double()
    inherit_cache = True
    name = "now"


@compiles(now, "sqlite")
def _sqlite(_element: Any, _compiler: Any, **_: Any) -> str:
    return "unixepoch('subsec')"


@compiles(now, "postgresql")
def _postgresql(_element: Any, _compiler: Any, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def read_clock(session: Session) -> float:
    """The present moment, in seconds since 1970."""
    moment: float = session.scalars(now().select()).one()
    return moment
