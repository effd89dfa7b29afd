"""Sweeps of many trials are stored, and deleted, in small transactions."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database.clock import now
from app.database.engines import Database
from app.queue.states import JobState
from app.queue.tables import Job
from app.resources import Resources
from app.retention.service import sweep as collect_garbage
from app.sweeps import add_trials, repository, service
from app.sweeps.tables import Sweep, SweepCell
from tests import sweep_rows
from tests.app.sweeps.conftest import JOB, SPACE

BODY: dict[str, Any] = {"job": JOB, "space": SPACE}


class Killed(BaseException):
    """As if the process were gone: nothing is put right."""


@pytest.fixture
def commits(database: Database) -> list[int]:
    """Trials that each transaction inserted."""
    counts: list[int] = []
    pending = 0

    def inserted(_: Any, __: Any, statement: str, given: Any, *___: Any) -> None:
        nonlocal pending
        if statement.startswith("INSERT INTO sweep_cells"):
            pending += len(given) if isinstance(given, list) else 1

    def committed(_: Any) -> None:
        nonlocal pending
        counts.append(pending)
        pending = 0

    event.listen(database.write_engine, "before_cursor_execute", inserted)
    event.listen(database.write_engine, "commit", committed)
    return counts


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add_trials, "BATCH", 5)
    monkeypatch.setattr(service, "MOST_REMOVED", 2)


def die_at(monkeypatch: pytest.MonkeyPatch, batch: int, death: BaseException) -> None:
    add, batches = repository.add_trials, iter(range(1, 100))

    def add_or_die(session: Session, rows: Sequence[dict[str, Any]]) -> None:
        if next(batches) == batch:
            raise death
        add(session, rows)

    monkeypatch.setattr(repository, "add_trials", add_or_die)


def rows(database: Database) -> int:
    with database.read() as session:
        counts = (select(func.count()).select_from(table) for table in (Sweep, SweepCell))
        return sum(session.scalars(count).one() for count in counts)


def test_trials_are_stored_a_few_at_a_time_in_their_order(
    resources: Resources, commits: list[int]
) -> None:
    sweep_id = sweep_rows.start(resources, **BODY)
    assert [count for count in commits if count] == [5, 5, 2]
    board = sweep_rows.board(resources, sweep_id)
    assert [cell.number for cell in board.cells] == list(range(1, 13))
    shown = [(cell.settings["method.alpha"], cell.settings["method.r"]) for cell in board.cells]
    assert shown == [(alpha, r) for alpha in SPACE["method.alpha"] for r in SPACE["method.r"]]
    assert [cell.state for cell in board.cells] == ["queued", *["waiting"] * 11]


def test_a_sweep_that_was_stored_by_half_is_never_seen_and_goes(
    resources: Resources, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        die_at(patch, 2, Killed())
        with pytest.raises(Killed):
            sweep_rows.start(resources, **BODY)
    assert rows(resources.database) == 1 + 5
    with resources.database.read() as session:
        assert repository.running(session) == []
        left = session.scalars(select(Sweep.id)).one()
    assert client.get("/v1/sweeps").json()["data"] == []
    assert client.get(f"/v1/sweeps/{left}").status_code == 404
    assert client.post(f"/v1/sweeps/{left}/resume").status_code == 404

    collect_garbage(resources)
    assert rows(resources.database) == 1 + 5  # it may still be under way
    with resources.database.write() as session:
        session.execute(update(Sweep).values(created_at=now() - 90_000))
        session.commit()
    collect_garbage(resources)
    assert rows(resources.database) == 0


def test_a_start_that_fails_leaves_nothing(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_at(monkeypatch, 3, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        sweep_rows.start(resources, **BODY)
    assert rows(resources.database) == 0


def test_an_extension_that_was_stored_by_half_is_completed_by_the_same_call(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = client.post("/v1/sweeps", json=BODY).json()["id"]
    more = {"space": {"method.r": [16, 32]}}
    with monkeypatch.context() as patch:
        die_at(patch, 2, ValueError("no"))
        assert client.post(f"/v1/sweeps/{sweep}/extend", json=more).status_code == 500
    assert client.get(f"/v1/sweeps/{sweep}").json()["cells"] == 12 + 5
    extended = client.post(f"/v1/sweeps/{sweep}/extend", json=more).json()
    assert extended["cells"] == 4 * 5
    assert extended["space"]["method.r"] == [2, 4, 8, 16, 32]
    numbers = [cell["number"] for cell in client.get(f"/v1/sweeps/{sweep}/cells").json()]
    assert numbers == list(range(1, 21))


def test_a_sweep_is_deleted_with_its_jobs_a_few_at_a_time(
    client: TestClient, database: Database
) -> None:
    sweep = client.post("/v1/sweeps", json={**BODY, "parallel": 7}).json()["id"]
    client.post(f"/v1/sweeps/{sweep}/stop")
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204
    assert rows(database) == 0
    with database.read() as session:
        assert session.scalars(select(Job.id)).all() == []


def test_many_known_trials_are_looked_up_a_few_at_a_time(
    client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sweeps.add_trials.MOST_LOOKED", 5)
    first = client.post("/v1/sweeps", json={**BODY, "parallel": 12}).json()["id"]
    with database.write() as session:
        ended = {"state": JobState.SUCCEEDED, "finished_at": now(), "summary": {}}
        session.execute(update(Job).values(**ended))
        session.commit()
    assert client.get(f"/v1/sweeps/{first}").json()["counts"]["succeeded"] == 12
    second = client.post("/v1/sweeps", json=BODY).json()["id"]
    found = client.get(f"/v1/sweeps/{second}").json()
    assert (found["state"], found["counts"]["succeeded"]) == ("finished", 12)
