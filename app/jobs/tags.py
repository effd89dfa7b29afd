"""Tags of jobs: a few short words by which people find jobs again.

They are stored as a JSON list, and a tag is looked up as its JSON text inside that list. So a tag
must not hold what JSON escapes or puts between the items, and is in lower case: SQLite's LIKE does
not tell letters by case.
"""

import json
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from app.http.fields import Text

LONGEST = 40  # characters
MOST = 16  # tags of a job
_RESERVED = frozenset('",\\')


def spelled(text: str) -> str:
    """A tag in the one spelling that is stored: lower case, single spaces."""
    return " ".join(text.split()).lower()


def _checked(text: str) -> str:
    tag = spelled(text)
    if not tag:
        raise PydanticCustomError("blank_tag", "must not be blank")
    if not tag.isprintable() or not _RESERVED.isdisjoint(tag):
        raise PydanticCustomError(
            "tag_characters",
            "must not contain commas, double quotes, backslashes or control characters",
        )
    return tag


def _distinct(tags: list[str]) -> list[str]:
    distinct = sorted(set(tags))
    if len(distinct) > MOST:
        raise PydanticCustomError("too_many_tags", "must have at most 16 tags")
    return distinct


Tag = Annotated[Annotated[str, Text(LONGEST)], AfterValidator(_checked)]
Tags = Annotated[list[Tag], AfterValidator(_distinct)]


def stored(tag: str) -> str:
    """The tag as it stands in the stored list."""
    return json.dumps(tag)
