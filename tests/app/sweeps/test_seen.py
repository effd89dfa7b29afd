"""A sweep that is looked at again is the same object, or differs exactly where it has changed."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from app.resources import Resources
from app.sweeps import repository, results
from app.sweeps.snapshot import Board
from app.sweeps.winner import judge
from tests.app.sweeps.conftest import Start
from tests.app.sweeps.stand_in import StandIn


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def look(resources: Resources) -> Callable[[str], Board]:
    def read(sweep_id: str) -> Board:
        with resources.database.read() as session:
            return results.board(session, repository.get(session, UUID(sweep_id)))

    return read


def anew(look: Callable[[str], Board], sweep_id: str, monkeypatch: pytest.MonkeyPatch) -> Board:
    """As somebody reads it who has never seen it."""
    with monkeypatch.context() as patch:
        patch.setattr(results, "_memory", results._Memory())
        return look(sweep_id)


def test_what_was_seen_is_kept_true_whatever_happens(
    start: Start,
    worker: StandIn,
    look: Callable[[str], Board],
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep_id = start(strategy={"type": "halving", "keep": 2})["id"]
    address = f"/v1/sweeps/{sweep_id}"

    def begin() -> None:
        claimed = worker.take()
        assert claimed is not None
        begun.append(claimed)

    begun: list[object] = []
    steps: list[Callable[[], object]] = [
        lambda: None,
        begin,
        lambda: worker.end(begun.pop()),  # type: ignore[arg-type]
        lambda: worker.work(3),
        lambda: client.post(f"{address}/pause"),
        lambda: client.post(f"{address}/resume"),
        lambda: setattr(worker, "fails", lambda _: True),
        lambda: worker.work(4),
        lambda: client.post(f"{address}/retry"),
        lambda: setattr(worker, "fails", lambda _: False),
        worker.give_up,
        worker.work,
        lambda: client.post(f"{address}/extend", json={"space": {"method.r": [16]}}),
        worker.work,
    ]
    for number, step in enumerate(steps):
        step()
        board, fresh = look(sweep_id), anew(look, sweep_id, monkeypatch)
        assert vars(board) | {"ranked": 0} == vars(fresh) | {"ranked": 0}, number
        assert look(sweep_id) is board
        assert judge(board) == judge(fresh)
    assert look(sweep_id).state == "finished"


def test_only_cells_that_changed_are_read_again(
    start: Start, worker: StandIn, look: Callable[[str], Board], resources: Resources
) -> None:
    sweep_id = start()["id"]
    worker.work(5)
    before = look(sweep_id)
    rows = 0

    def count(*_: object) -> None:
        nonlocal rows
        rows += 1

    worker.work(1)
    with resources.database.read() as session:
        event.listen(session, "loaded_as_persistent", count)
        after = results.board(session, repository.get(session, UUID(sweep_id)))
    changed = [a.number for a, b in zip(before.cells, after.cells, strict=True) if a is not b]
    assert changed == [6, 7]  # one has ended, the next one is queued
    assert 0 < rows < 12  # of sweep, cells, jobs and grades


def test_of_many_sweeps_the_last_few_are_kept(start: Start, look: Callable[[str], Board]) -> None:
    ids = [start(space={"method.r": [2]})["id"] for _ in range(results.KEPT + 1)]
    boards = [look(each) for each in ids]
    assert look(ids[-1]) is boards[-1]
    assert look(ids[0]) is not boards[0]
