"""Pages of a list, newest first. A cursor is the id of the last item, made opaque.

Ids are UUIDv7 and so sorted by time: the next page is what has a smaller id, whatever was added
meanwhile.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Generic, Protocol, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import Field

from app.errors import InvalidCursor
from app.http.fields import View

Limit = Annotated[int, Query(ge=1, le=100, description="Most items on a page.")]
CURSOR = r"^[A-Za-z0-9_-]{21}[AQgw]$"  # for who reads the schema: others are `InvalidCursor`
After = Annotated[
    Annotated[str, Field(json_schema_extra={"pattern": CURSOR})] | None,
    Query(max_length=64, description="`next` of the page before."),
]
Item = TypeVar("Item")


class Page(View, Generic[Item]):
    """Items, and the cursor of the next page if there is one."""

    data: list[Item]
    next: str | None = None


class _Row(Protocol):
    @property
    def id(self) -> UUID: ...


RowT = TypeVar("RowT", bound=_Row)


def encode(last: UUID | None) -> str | None:
    """The cursor that stands after an item."""
    if last is None:
        return None
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode(cursor: str | None) -> UUID | None:
    """The id to start after. Raises `InvalidCursor`."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor() from error


def cut(rows: Sequence[RowT], limit: int) -> tuple[Sequence[RowT], str | None]:
    """Rows read with `limit + 1` as (rows of this page, cursor of the next)."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(rows[limit - 1].id)
