"""Declarative base, column types and clock that work on both SQLite and PostgreSQL.

The clock of the database is the only clock whose times are compared across processes. Times are
stored as seconds since 1970 UTC in double precision, so that the same arithmetic works on both.
"""

from typing import Annotated, Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, Integer, MetaData, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column
from sqlalchemy.sql.functions import FunctionElement
from uuid_utils.compat import uuid7

JsonObject = dict[str, Any]
BigInt = Annotated[int, mapped_column(BigInteger().with_variant(Integer(), "sqlite"))]


class Base(DeclarativeBase):
    """Base of all tables. The naming convention lets migrations refer to constraints."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        UUID: Uuid(),
        JsonObject: JSON().with_variant(JSONB(), "postgresql"),
        list[str]: JSON(),
    }


def new_id() -> UUID:
    """Return a UUIDv7: unique, and sorted by creation time."""
    return uuid7()


def min_uuid7_at(seconds: float) -> UUID:
    """Return the smallest UUIDv7 of a time since 1970: ids of earlier rows are lower.

    A time before 1970, such as that of a hundred years ago, counts as 1970.
    """
    return UUID(int=int(max(seconds, 0.0) * 1000) << 80 | 0x7 << 76 | 0x2 << 62)


def enum_check(column: str, values: tuple[str, ...], name: str) -> CheckConstraint:
    """Return a CHECK constraint for an enumeration that is stored as a string.

    Adding a value to it is a cheap migration.
    """
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


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
