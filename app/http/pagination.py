"""Cursor pagination, newest first. A cursor is the encoded id of the last item of a page.

Ids are UUIDv7 and so sort by creation time: the next page has the smaller ids, even if items were
added in the meantime.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Generic, Protocol, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import Field

from app.errors import InvalidCursor
from app.http.fields import ResponseModel

PageLimit = Annotated[int, Query(ge=1, le=100, description="Maximum number of items on a page.")]
CURSOR_PATTERN = r"^[A-Za-z0-9_-]{21}[AQgw]$"  # in the OpenAPI schema only: see `decode_cursor`
PageCursor = Annotated[
    Annotated[str, Field(json_schema_extra={"pattern": CURSOR_PATTERN})] | None,
    Query(max_length=64, description="`next` of the previous page."),
]
_ItemT = TypeVar("_ItemT")


class Page(ResponseModel, Generic[_ItemT]):
    """Items of one page, and the cursor of the next page if there is one."""

    data: list[_ItemT]
    next: str | None = None


class _HasId(Protocol):
    @property
    def id(self) -> UUID: ...


_RowT = TypeVar("_RowT", bound=_HasId)


def encode_cursor(last: UUID | None) -> str | None:
    """Return the cursor of the page after an item."""
    if last is None:
        return None
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> UUID | None:
    """Return the id after which the page starts. Raises `InvalidCursor`."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor() from error


def split_page(rows: Sequence[_RowT], limit: int) -> tuple[Sequence[_RowT], str | None]:
    """Split rows that were read with `limit + 1` into (rows of this page, next cursor)."""

    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode_cursor(rows[limit - 1].id)
