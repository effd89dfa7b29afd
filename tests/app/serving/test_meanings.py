"""What references mean, also while the database is away."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.database.engines import Database
from app.registry import service
from app.registry.errors import ModelNotFound, NoModelPromoted
from app.resources import Resources
from app.serving.model_resolver import FRESH_SECONDS, STALE_SECONDS, Meanings
from app.settings import Settings
from tests.app.serving.conftest import Publish
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meaning(database: Database, clock: Clock) -> Callable[[str | None], str]:
    """The version that a reference means."""
    meanings = Meanings(database, clock=clock)
    return lambda ref: asyncio.run(meanings.of(ref)).ref


Meaning = Callable[[str | None], str]


def test_a_promotion_is_seen_within_a_second(
    meaning: Meaning, publish: Publish, clock: Clock
) -> None:
    publish()
    assert meaning("sentiment") == meaning(None) == "sentiment:1"
    publish()
    assert meaning("sentiment") == meaning(None) == "sentiment:1"
    clock.now += FRESH_SECONDS
    assert FRESH_SECONDS < 1
    assert meaning("sentiment") == meaning(None) == "sentiment:2"


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_with_the_database_down_the_last_meaning_holds_for_ten_minutes(
    meaning: Meaning, publish: Publish, database: Database, settings: Settings, clock: Clock
) -> None:
    publish()
    publish("other", promote=False)
    assert meaning("sentiment") == "sentiment:1"
    database.close()
    settings.sqlite_path.write_bytes(b"no database any more" * 100)
    clock.now += STALE_SECONDS - 1
    assert meaning("sentiment") == "sentiment:1"
    with pytest.raises(SQLAlchemyError):
        meaning("other:1")  # nobody has asked for it before
    clock.now += 1
    with pytest.raises(SQLAlchemyError):
        meaning("sentiment")


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_reference_that_means_nothing_any_more_is_forgotten(
    meaning: Meaning, publish: Publish, resources: Resources, settings: Settings, clock: Clock
) -> None:
    publish()
    assert meaning("sentiment") == "sentiment:1"
    with resources.database.write() as session:
        service.delete_alias(session, name="sentiment", alias="production")
    clock.now += FRESH_SECONDS
    for ref in ("sentiment", None):
        with pytest.raises(NoModelPromoted):
            meaning(ref)
    with pytest.raises(ModelNotFound):
        meaning("nothing")
    resources.database.close()
    settings.sqlite_path.write_bytes(b"no database any more" * 100)
    with pytest.raises(SQLAlchemyError):
        meaning("sentiment")
