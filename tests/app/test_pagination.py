"""Cursor pagination."""

from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.database.base import new_id
from app.errors import InvalidCursor
from app.http.pagination import decode_cursor, encode_cursor, split_page


@dataclass
class Row:
    id: UUID


@given(st.uuids())
def test_cursor_round_trip(last: UUID) -> None:
    assert decode_cursor(encode_cursor(last)) == last


def test_no_cursor_is_the_first_page() -> None:
    assert decode_cursor(None) is None


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "é", "A" * 21, "A" * 23, "A" * 64])
def test_invalid_cursors_are_rejected(cursor: str) -> None:
    with pytest.raises(InvalidCursor, match="after"):
        decode_cursor(cursor)


def test_pages_cover_the_whole_list() -> None:
    rows = sorted((Row(new_id()) for _ in range(7)), key=lambda row: row.id, reverse=True)
    seen: list[Row] = []
    cursor = None
    while True:
        after = decode_cursor(cursor)
        left = [row for row in rows if after is None or row.id < after]
        page, cursor = split_page(left[: 3 + 1], 3)
        seen += page
        if cursor is None:
            break
    assert seen == rows


def test_exactly_full_page_has_no_next() -> None:
    rows = [Row(new_id()) for _ in range(3)]
    assert split_page(rows, 3) == (rows, None)
