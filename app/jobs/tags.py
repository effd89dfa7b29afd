"""Tags of jobs: a few short words that help people find jobs.

They are stored as a JSON list, and a tag is searched as its JSON text inside that list. So a tag
must not contain what JSON escapes or puts between items, and it is lower case, because LIKE in
SQLite ignores case.
"""

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText

MAX_TAG_LENGTH = 40  # characters
MAX_TAGS = 16  # per job
_RESERVED = frozenset('",\\')


def normalize_tag(text: str) -> str:
    """Return the stored form of a tag: lower case, single spaces."""
    return " ".join(text.split()).lower()


def _validate_tag(text: str) -> str:
    tag = normalize_tag(text)
    if not tag:
        raise PydanticCustomError("blank_tag", "must not be blank")
    if not tag.isprintable() or not _RESERVED.isdisjoint(tag):
        raise PydanticCustomError(
            "tag_characters",
            "must not contain commas, double quotes, backslashes or control characters",
        )
    return tag


def _deduplicate(tags: list[str]) -> list[str]:
    distinct = sorted(set(tags))
    if len(distinct) > MAX_TAGS:
        raise PydanticCustomError("too_many_tags", "must have at most 16 tags")
    return distinct


Tag = Annotated[Annotated[str, CleanText(MAX_TAG_LENGTH)], AfterValidator(_validate_tag)]
Tags = Annotated[list[Tag], AfterValidator(_deduplicate)]
