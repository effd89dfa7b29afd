"""Sweeps of many trials are stored, and deleted, in small transactions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database
from app.queue.enums import JobState
from app.queue.tables import Job
from app.resources import Resources
from app.retention.service import collect_garbage as collect_garbage
from app.sweeps import repository, scheduler, service
from app.sweeps.tables import Sweep, Trial
from tests import sweep_rows
from tests.app.sweeps.conftest import JOB, SPACE

BODY: dict[str, Any] = {"job": JOB, "space": SPACE}
SAMPLE = {"type": "random", "trials": 4}


class Killed(BaseException):
    """Simulates a killed process: no cleanup runs."""


@pytest.fixture
def commits(database: Database) -> list[int]:
    """Number of trials that each transaction inserted."""
    counts: list[int] = []
    pending = 0

    def inserted(_: Any, __: Any, statement: str, given: Any, *___: Any) -> None:
        nonlocal pending
        if statement.startswith("INSERT INTO trials"):
            pending += len(given) if isinstance(given, list) else 1

    def committed(_: Any) -> None:
        nonlocal pending
        counts.append(pending)
        pending = 0

    event.listen(database.write_engine, "before_cursor_execute", inserted)
    event.listen(database.write_engine, "commit", committed)
    return counts


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "TRIALS_PER_TRANSACTION", 5)
    monkeypatch.setattr(service, "JOBS_PER_DELETE", 2)


def fail_at_batch(monkeypatch: pytest.MonkeyPatch, batch: int, error: BaseException) -> None:
    insert, batches = repository.add_trials, iter(range(1, 100))

    def insert_or_raise(session: Session, rows: Sequence[dict[str, Any]]) -> None:
        if next(batches) == batch:
            raise error
        insert(session, rows)

    monkeypatch.setattr(repository, "add_trials", insert_or_raise)


def count_rows(database: Database) -> int:
    with database.read() as session:
        counts = (select(func.count()).select_from(table) for table in (Sweep, Trial))
        return sum(session.scalars(count).one() for count in counts)


def test_trials_are_stored_in_batches_and_in_order(
    resources: Resources, commits: list[int]
) -> None:
    sweep_id = sweep_rows.start(resources, **BODY)
    assert [count for count in commits if count] == [5, 5, 2]
    snapshot = sweep_rows.read_snapshot(resources, sweep_id)
    assert [trial.number for trial in snapshot.trials] == list(range(1, 13))
    shown = [
        (trial.settings["method.alpha"], trial.settings["method.r"]) for trial in snapshot.trials
    ]
    assert shown == [(alpha, r) for alpha in SPACE["method.alpha"] for r in SPACE["method.r"]]
    assert [trial.state for trial in snapshot.trials] == ["queued", *["waiting"] * 11]


def test_a_partially_stored_sweep_is_hidden_and_collected(
    resources: Resources, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_at_batch(patch, 2, Killed())
        with pytest.raises(Killed):
            sweep_rows.start(resources, **BODY)
    assert count_rows(resources.database) == 1 + 5
    with resources.database.read() as session:
        assert repository.list_running_sweep_ids(session) == []
        left = session.scalars(select(Sweep.id)).one()
    assert client.get("/v1/sweeps").json()["data"] == []
    assert client.get(f"/v1/sweeps/{left}").status_code == 404
    assert client.post(f"/v1/sweeps/{left}/resume").status_code == 404

    collect_garbage(resources)
    assert count_rows(resources.database) == 1 + 5  # the process may still be storing it
    with resources.database.write() as session:
        session.execute(update(Sweep).values(created_at=now() - 90_000))
    collect_garbage(resources)
    assert count_rows(resources.database) == 0


def test_a_failed_start_leaves_no_rows(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_batch(monkeypatch, 3, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        sweep_rows.start(resources, **BODY)
    assert count_rows(resources.database) == 0


@pytest.mark.parametrize("last_transaction", [False, True])
def test_a_failed_extension_adds_no_trials(
    last_transaction: bool, client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.post("/v1/sweeps", json=BODY).json()
    sweep = before["id"]
    more = {"space": {"method.r": [16, 32]}}

    def die(*_: Any) -> None:
        raise ValueError

    with monkeypatch.context() as patch:
        if last_transaction:
            patch.setattr(service, "_continue_running", die)
        else:
            fail_at_batch(patch, 2, ValueError("no"))
        assert client.post(f"/v1/sweeps/{sweep}/extend", json=more).status_code == 500
    assert client.get(f"/v1/sweeps/{sweep}").json() == before
    assert count_rows(database) == 1 + 12
    extended = client.post(f"/v1/sweeps/{sweep}/extend", json=more).json()
    assert extended["trial_count"] == 4 * 5
    assert extended["space"]["method.r"] == [2, 4, 8, 16, 32]
    assert count_rows(database) == 1 + 20
    numbers = [trial["number"] for trial in client.get(f"/v1/sweeps/{sweep}/trials").json()]
    assert numbers == list(range(1, 21))
    again = client.post(f"/v1/sweeps/{sweep}/extend", json=more)
    assert (again.status_code, again.json()["code"]) == (422, "nothing_to_extend")


def test_what_a_killed_extension_leaves_is_collected(
    client: TestClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.post("/v1/sweeps", json={**BODY, "strategy": SAMPLE}).json()
    sweep_id = UUID(before["id"])
    with monkeypatch.context() as patch:
        fail_at_batch(patch, 2, Killed())
        with pytest.raises(Killed):
            sweep_rows.extend(resources, sweep_id, trials=12)
    assert count_rows(resources.database) == 2 + 4 + 5
    assert client.get(f"/v1/sweeps/{sweep_id}").json() == before
    smaller = client.post(f"/v1/sweeps/{sweep_id}/extend", json={"trials": 6}).json()
    assert smaller["trial_count"] == 6
    with resources.database.write() as session:
        session.execute(update(Sweep).values(created_at=now() - 90_000))
    collect_garbage(resources)
    assert count_rows(resources.database) == 1 + 6


class MeddledDatabase(Database):
    """A database in which something else happens after the first transaction."""

    meddle: Callable[[], object] | None = None

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle()


def test_jobs_that_another_sweep_reuses_during_a_deletion_are_not_deleted(
    client: TestClient, resources: Resources, database: Database
) -> None:
    many = {**BODY, "max_parallel_jobs": 12}
    one = client.post("/v1/sweeps", json=many).json()["id"]
    with database.write() as session:
        ended = {"state": JobState.SUCCEEDED, "finished_at": now(), "summary": {}}
        session.execute(update(Job).values(**ended))
    resumed = client.post(f"/v1/sweeps/{one}/retry").json()
    assert resumed["state"] == "finished"
    meddled = MeddledDatabase(write=database.write_engine, read=database.read_engine)
    meddled.meddle = lambda: client.post("/v1/sweeps", json=many)
    service.delete_sweep(meddled, sweep_id=UUID(one), store=resources.store)
    [two] = client.get("/v1/sweeps").json()["data"]
    deleted = service.JOBS_PER_DELETE  # before the other sweep was there
    assert two["trial_counts"]["succeeded"] == 12 - deleted


def test_a_sweep_and_its_jobs_are_deleted_in_batches(
    client: TestClient, database: Database
) -> None:
    sweep = client.post("/v1/sweeps", json={**BODY, "max_parallel_jobs": 7}).json()["id"]
    client.post(f"/v1/sweeps/{sweep}/stop")
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204
    assert count_rows(database) == 0
    with database.read() as session:
        assert session.scalars(select(Job.id)).all() == []


@pytest.fixture
def _small_assignments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_ASSIGNED_PER_TRANSACTION", 5)


@pytest.mark.usefixtures("_small_assignments")
def test_as_many_trials_are_queued_as_may_run(client: TestClient, database: Database) -> None:
    sweep = client.post("/v1/sweeps", json={**BODY, "max_parallel_jobs": 100}).json()["id"]

    def count_queued_after(verb: str, **body: Any) -> int:
        after = client.post(f"/v1/sweeps/{sweep}/{verb}", json=body).json()
        return int(after["trial_counts"]["queued"])

    assert client.get(f"/v1/sweeps/{sweep}").json()["trial_counts"]["queued"] == 12
    assert count_queued_after("pause") == 0
    assert count_queued_after("resume") == 12
    assert count_queued_after("extend", space={"method.r": [16, 32]}) == 20
    with database.write() as session:
        session.execute(update(Job).values(state=JobState.FAILED, finished_at=now()))
    assert count_queued_after("retry") == 20


@pytest.mark.usefixtures("_small_assignments")
def test_many_existing_results_are_assigned_in_batches(
    client: TestClient, database: Database
) -> None:
    first = client.post("/v1/sweeps", json={**BODY, "max_parallel_jobs": 12}).json()["id"]
    with database.write() as session:
        ended = {"state": JobState.SUCCEEDED, "finished_at": now(), "summary": {}}
        session.execute(update(Job).values(**ended))
    assert client.get(f"/v1/sweeps/{first}").json()["trial_counts"]["succeeded"] == 12
    second = client.post("/v1/sweeps", json=BODY).json()["id"]
    found = client.get(f"/v1/sweeps/{second}").json()
    assert (found["state"], found["trial_counts"]["succeeded"]) == ("finished", 12)
