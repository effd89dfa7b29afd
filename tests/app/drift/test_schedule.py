"""Automatic checks of the versions in production."""

import time
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database
from app.drift import schedule
from app.drift.errors import TooFewDriftTexts, TrainingDataDeleted
from app.drift.schedule import run_next_due_check
from app.drift.tables import DriftCheck, DriftClaim
from app.errors import AppError, ServiceUnavailable
from app.resources import Resources
from app.retention.service import collect_garbage
from lora_core import failpoints
from tests.app.drift.conftest import BILLS, FILMS, Publish, Train, keep, texts
from tests.app.drift.test_drift import drift
from tests.slow import MOSTLY_SQLITE, on_both_databases

DAY = 86_400.0


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Some tests run on both databases."""
    kind: str = request.param
    return kind


def checks(database: Database) -> list[DriftCheck]:
    with database.read() as session:
        return list(session.scalars(select(DriftCheck).order_by(DriftCheck.id)))


def claims(database: Database) -> list[DriftClaim]:
    with database.read() as session:
        return list(session.scalars(select(DriftClaim)))


def age_last_check(database: Database, days: float) -> None:
    """Let this time pass, for the newest check alone."""
    with database.write() as session:
        session.execute(update(DriftCheck).values(window_end=now() - days * DAY))


def expire_claims(database: Database) -> None:
    with database.write() as session:
        session.execute(update(DriftClaim).values(until=now() - 1))


@on_both_databases
def test_a_version_is_checked_when_enough_texts_are_kept_and_then_after_a_week(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    database = resources.database
    assert not run_next_due_check(resources)
    keep(database, texts(FILMS, 49, seed=1))
    assert not run_next_due_check(resources)
    keep(database, texts(FILMS, 1, seed=2))
    assert run_next_due_check(resources)
    (first,) = checks(database)
    assert (first.version_ref, first.automatic, first.recent_texts) == ("sentiment:1", True, 50)
    assert claims(database) == []
    keep(database, texts(BILLS, 60, seed=3))
    assert not run_next_due_check(resources)  # not before the week is over
    age_last_check(database, 6.9)
    assert not run_next_due_check(resources)
    age_last_check(database, 7.1)
    assert run_next_due_check(resources)
    assert [each.alarm for each in checks(database)] == [False, True]
    assert not run_next_due_check(resources)


def test_only_versions_in_production(
    keeping: TestClient, train: Train, publish: Publish, resources: Resources
) -> None:
    train(keeping)
    publish(promote=False)
    keep(resources.database, texts(FILMS, 60, seed=1), number=2)
    keep(resources.database, texts(FILMS, 60, seed=1), model="other")
    assert not run_next_due_check(resources)


class Killed(BaseException):
    """Ends the process."""


@on_both_databases
def test_a_killed_worker_neither_loses_nor_repeats_a_check(
    keeping: TestClient, train: Train, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(keeping)
    database = resources.database
    keep(database, texts(FILMS, 60, seed=1))

    def kill(point: str) -> None:
        raise Killed(point)

    monkeypatch.setattr(schedule, "failpoint", kill)
    with pytest.raises(Killed, match="drift_claimed"):
        run_next_due_check(resources)
    monkeypatch.setattr(schedule, "failpoint", failpoints.failpoint)
    assert not run_next_due_check(resources)  # another worker leaves the claim alone
    expire_claims(database)
    assert run_next_due_check(resources)
    assert not run_next_due_check(resources)
    assert (len(checks(database)), claims(database)) == (1, [])


@on_both_databases
def test_of_two_workers_one_checks(
    keeping: TestClient, train: Train, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(keeping)
    keep(resources.database, texts(FILMS, 60, seed=1))
    find_due, others = schedule._find_due, [0]

    def find_late(*args: Any) -> Any:
        due = find_due(*args)
        if others[0] == 0:
            others[0] = 1
            assert run_next_due_check(resources)  # the other worker is faster
        return due

    monkeypatch.setattr(schedule, "_find_due", find_late)
    assert run_next_due_check(resources)
    assert len(checks(resources.database)) == 1


def test_a_failed_check_tells_why_and_waits_a_day(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    database = resources.database
    keep(database, texts(FILMS, 60, seed=1))
    assert keeping.delete("/v1/datasets/films:1").status_code == 204
    assert run_next_due_check(resources)
    assert not run_next_due_check(resources)
    problem = drift(keeping)["problem"]
    assert problem["code"] == "training_data_deleted"
    assert "films:1" in problem["message"]
    (claim,) = claims(database)
    assert claim.until == pytest.approx(time.time() + DAY, abs=60)
    assert checks(database) == []


def test_another_version_in_production_does_not_wait(
    keeping: TestClient, train: Train, publish: Publish, resources: Resources
) -> None:
    train(keeping)
    keep(resources.database, texts(FILMS, 60, seed=1))
    keeping.delete("/v1/datasets/films:1")
    assert run_next_due_check(resources)
    publish(imported=True)
    keep(resources.database, texts(FILMS, 60, seed=1), number=2)
    assert drift(keeping)["problem"] is None
    assert run_next_due_check(resources)
    assert drift(keeping)["problem"]["code"] == "training_data_unknown"


def test_texts_that_are_mostly_the_same_are_counted_again_later(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    start = "plot " * 1200  # the rest is not compared
    keep(resources.database, [f"{start}{text}" for text in texts(FILMS, 60, seed=1)])
    assert run_next_due_check(resources)
    assert not run_next_due_check(resources)
    (claim,) = claims(resources.database)
    assert (claim.error_code, drift(keeping)["problem"]) == (None, None)


def test_a_text_that_is_sent_all_the_time_counts_once(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    keep(resources.database, texts(FILMS, 1, seed=1) * 4000, text_hash="same")
    keep(resources.database, texts(FILMS, 48, seed=2))
    assert drift(keeping)["new_texts"] == 49
    assert not run_next_due_check(resources)
    keep(resources.database, texts(FILMS, 1, seed=3))
    keep(resources.database, texts(FILMS, 1, seed=1) * 1100, text_hash="same")
    assert run_next_due_check(resources)
    (made,) = checks(resources.database)
    assert made.recent_texts == 50


@pytest.mark.parametrize("error", [TooFewDriftTexts, TrainingDataDeleted])
@on_both_databases
def test_a_failed_check_leaves_the_claims_of_others_alone(
    error: type[AppError],
    keeping: TestClient,
    train: Train,
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train(keeping)
    database = resources.database
    keep(database, texts(FILMS, 60, seed=1))
    others: list[DriftClaim | None] = [None, DriftClaim(model="sentiment", number=2, until=1.9e9)]
    for other in others:

        def fail(*_: Any, other: DriftClaim | None = other, **__: Any) -> None:
            with database.write() as session:
                session.execute(delete(DriftClaim))
                if other is not None:
                    session.add(other)
            raise error(version="sentiment:1", texts=1, needed=50, dataset="films:1")

        with monkeypatch.context() as patch:
            patch.setattr("app.drift.service.create_drift_check", fail)
            assert run_next_due_check(resources)
        found = [(each.number, each.until) for each in claims(database)]
        assert found == ([] if other is None else [(2, 1.9e9)])


def test_an_unavailable_store_postpones_the_check(
    keeping: TestClient, train: Train, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoreDown(ServiceUnavailable):
        code = "down"
        message = "The store is down."

    def fail(*_: Any, **__: Any) -> None:
        raise StoreDown()

    train(keeping)
    keep(resources.database, texts(FILMS, 60, seed=1))
    with monkeypatch.context() as patch:
        patch.setattr("app.drift.service.create_drift_check", fail)
        assert run_next_due_check(resources)
    assert drift(keeping)["problem"] is None
    expire_claims(resources.database)
    assert run_next_due_check(resources)
    assert len(checks(resources.database)) == 1


def test_a_manual_check_ends_a_problem(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    keep(resources.database, texts(FILMS, 60, seed=1))
    with resources.database.write() as session:
        claim = {"model": "sentiment", "number": 1, "until": time.time() + DAY}
        session.add(DriftClaim(**claim, error_code="data_too_large", error_message="Too large."))
    assert drift(keeping)["problem"]["code"] == "data_too_large"
    assert keeping.post("/v1/models/sentiment/drift/checks").status_code == 201
    assert drift(keeping)["problem"] is None


def test_a_manual_check_of_another_version_ends_no_problem(
    keeping: TestClient, train: Train, resources: Resources
) -> None:
    train(keeping)
    keep(resources.database, texts(FILMS, 60, seed=1))
    with resources.database.write() as session:
        session.add(DriftClaim(model="sentiment", number=2, until=time.time() + DAY))
    assert keeping.post("/v1/models/sentiment:1/drift/checks").status_code == 201
    assert [each.number for each in claims(resources.database)] == [2]


def test_checks_have_an_end(keeping: TestClient, train: Train, resources: Resources) -> None:
    train(keeping)
    database = resources.database
    keep(database, texts(FILMS, 60, seed=1))
    assert run_next_due_check(resources)
    old = int((time.time() - 401 * DAY) * 1000) << 80
    with database.write() as session:
        (check,) = session.scalars(select(DriftCheck)).all()
        fields = {column.key: getattr(check, column.key) for column in DriftCheck.__table__.columns}
        for i in range(3):
            fields |= {"id": type(check.id)(int=old + i), "window_start": float(i + 1)}
            session.add(DriftCheck(**fields))
    assert collect_garbage(resources, dry_run=True).expired_drift_checks == 3
    done = collect_garbage(resources)
    assert ("drift check", 3) in [(each.kind, each.count) for each in done.totals()]
    assert len(checks(database)) == 1
