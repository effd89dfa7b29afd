"""Which version a page of a model shows."""

from typing import Annotated, NamedTuple

from fastapi import Query
from sqlalchemy.orm import Session

from app.registry import repository
from app.registry.tables import PRODUCTION

VersionQuery = Annotated[int | None, Query(ge=1, lt=10**9)]


class ShownVersion(NamedTuple):
    """The version that a page shows, and the numbers of all that it could show."""

    ref: str
    number: int
    numbers: list[int]


def get_shown_version(session: Session, name: str, wanted: int | None) -> ShownVersion:
    """Return the wanted version; by default that in production or, without any, the newest one.

    A wanted version need not exist. Raises `ModelNotFound`.
    """
    model = repository.get_model(session, name)
    aliases = repository.get_version_numbers_by_alias(session, model.id)
    numbers = [each.number for each in repository.list_versions(session, model.id)]
    number = wanted or aliases.get(PRODUCTION) or numbers[0]
    return ShownVersion(f"{name}:{number}", number, numbers)
