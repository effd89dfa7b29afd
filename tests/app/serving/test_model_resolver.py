"""Tests of resolving model references, also while the database is unavailable."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy.exc import SQLAlchemyError

from app.database.engines import Database
from app.registry import service
from app.registry.errors import ModelNotFound, NoModelPromoted
from app.resources import Resources
from app.serving.model_pool import CACHE_TTL_SECONDS, STALE_IF_ERROR_SECONDS, ModelResolver
from app.settings import Settings
from tests.app.serving.conftest import Publish
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolve(database: Database, clock: Clock) -> Callable[[str | None], str]:
    """Resolves a reference to its version."""
    resolver = ModelResolver(database, clock=clock)
    return lambda ref: asyncio.run(resolver.resolve(ref)).ref


Resolve = Callable[[str | None], str]


def test_promotion_takes_effect_within_a_second(
    resolve: Resolve, publish: Publish, clock: Clock
) -> None:
    publish()
    assert resolve("sentiment") == resolve(None) == "sentiment:1"
    publish()
    assert resolve("sentiment") == resolve(None) == "sentiment:1"
    clock.now += CACHE_TTL_SECONDS
    assert CACHE_TTL_SECONDS < 1
    assert resolve("sentiment") == resolve(None) == "sentiment:2"


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_cached_version_is_used_for_ten_minutes_without_the_database(
    resolve: Resolve, publish: Publish, database: Database, settings: Settings, clock: Clock
) -> None:
    publish()
    publish("other", promote=False)
    assert resolve("sentiment") == "sentiment:1"
    database.close()
    settings.default_sqlite_path.write_bytes(b"no database any more" * 100)
    clock.now += STALE_IF_ERROR_SECONDS - 1
    assert resolve("sentiment") == "sentiment:1"
    with pytest.raises(SQLAlchemyError):
        resolve("other:1")  # it is not cached
    clock.now += 1
    with pytest.raises(SQLAlchemyError):
        resolve("sentiment")


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_removed_reference_is_evicted(
    resolve: Resolve, publish: Publish, resources: Resources, settings: Settings, clock: Clock
) -> None:
    publish()
    assert resolve("sentiment") == "sentiment:1"
    with resources.database.write() as session:
        service.delete_alias(session, name="sentiment", alias="production")
    clock.now += CACHE_TTL_SECONDS
    for ref in ("sentiment", None):
        with pytest.raises(NoModelPromoted):
            resolve(ref)
    with pytest.raises(ModelNotFound):
        resolve("nothing")
    resources.database.close()
    settings.default_sqlite_path.write_bytes(b"no database any more" * 100)
    with pytest.raises(SQLAlchemyError):
        resolve("sentiment")
