"""Pages and cursors."""

from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.database.base import new_id
from app.errors import InvalidCursor
from app.http.pagination import cut, decode, encode


@dataclass
class Row:
    id: UUID


@given(st.uuids())
def test_a_cursor_is_read_back(last: UUID) -> None:
    assert decode(encode(last)) == last


def test_no_cursor_means_the_start() -> None:
    assert decode(None) is None


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "é", "A" * 21, "A" * 23, "A" * 64])
def test_anything_else_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor, match="after"):
        decode(cursor)


def test_pages_put_together_are_the_whole_list() -> None:
    rows = sorted((Row(new_id()) for _ in range(7)), key=lambda row: row.id, reverse=True)
    seen: list[Row] = []
    cursor = None
    while True:
        after = decode(cursor)
        left = [row for row in rows if after is None or row.id < after]
        page, cursor = cut(left[: 3 + 1], 3)
        seen += page
        if cursor is None:
            break
    assert seen == rows


def test_a_list_that_just_fills_a_page_has_no_next() -> None:
    rows = [Row(new_id()) for _ in range(3)]
    assert cut(rows, 3) == (rows, None)
