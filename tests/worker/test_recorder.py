"""What a training process tells is written once, in order, and only by the owner."""

import threading
from collections.abc import Callable
from uuid import UUID

import pysqlite3.dbapi2 as sqlite
import pytest
import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.clock import now
from app.database.engines import Database, open_database
from app.jobs import repository
from app.queue.fencing import Lease
from app.settings import Settings
from app.storage.store import ArtifactRef
from lora_core.events import Evaluated, Noted, Phase, Tick
from lora_core.specs.data import Split
from tests.job_rows import add_job, change, events, everything, give_back, job, points, take
from tests.waiting import wait_until
from tests.worker.test_rows import STEP
from worker.recorder import LONGEST_MESSAGE, WRITE_ROWS, Recorder


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


@pytest.fixture
def lease(database: Database, job_id: UUID) -> Lease:
    return take(database).lease


@pytest.fixture
def recorder(database: Database, lease: Lease) -> Recorder:
    return Recorder(database, lease, beat_seconds=0.3, drop=lambda _: None)


def test_points_and_events_share_one_row_of_numbers(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    recorder.add(STEP)
    recorder.add(Noted(code="cut", message="Three texts are cut."))
    recorder.add(STEP.model_copy(update={"step": 4}))
    recorder.write()
    numbers = [row.seq for row in points(database, job_id)]
    assert numbers == [2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14]  # 1 is the event of the claim
    assert [(row.seq, row.kind) for row in events(database, job_id)] == [
        (1, "started"),
        (8, "noted"),
    ]
    assert {row.attempt for row in points(database, job_id)} == {1}
    row = job(database, job_id)
    assert (row.step, row.stream_seq) == (4, 14)
    recorder.write()
    assert len(points(database, job_id)) == 12


def test_the_last_evaluation_does_not_repeat_a_point(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    for step, loss in ((1, 0.5), (2, 0.6), (1, 0.5)):
        recorder.add(Evaluated(step=step, split=Split.VALIDATION, metrics={"loss": loss}))
    recorder.write()
    recorder.add(Evaluated(step=1, split=Split.VALIDATION, metrics={"loss": 0.5}))
    recorder.add(Evaluated(step=1, split=Split.TEST, metrics={"loss": 0.4}))
    recorder.write()
    found = [(row.split, row.step, row.value) for row in points(database, job_id)]
    assert found == [("validation", 1, 0.5), ("validation", 2, 0.6), ("test", 1, 0.4)]


def test_public_names_stand_in_messages_and_long_ones_are_cut(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    recorder.public = lambda value: (
        value.replace("/data/1.csv", "reviews:1") if isinstance(value, str) else value
    )
    recorder.add(Noted(code="cut", message="/data/1.csv has long texts." + "x" * 10_000))
    recorder.write()
    message = events(database, job_id)[-1].message
    assert message.startswith("reviews:1 has long texts.")
    assert len(message) == LONGEST_MESSAGE


def test_it_is_time_to_write_after_many_rows_or_a_while(recorder: Recorder) -> None:
    assert not recorder.due()
    while len(recorder._rows) < WRITE_ROWS:
        assert not recorder.due()
        recorder.add(STEP.model_copy(update={"step": recorder.step + 1}))
    assert recorder.due()
    recorder.write()
    assert not recorder.due()
    wait_until(recorder.due, seconds=5)  # the beat, with nothing to tell


def test_a_tick_moves_the_step_on(database: Database, job_id: UUID, recorder: Recorder) -> None:
    recorder.add(Tick(phase=Phase.TRAINING, step=9))
    recorder.write()
    assert job(database, job_id).step == 9


def test_a_cancel_is_seen(database: Database, job_id: UUID, recorder: Recorder) -> None:
    recorder.write()
    assert not recorder.cancel_requested
    change(database, job_id, cancel_requested_at=now())
    recorder.write()
    assert recorder.cancel_requested


def test_who_lost_the_job_writes_nothing(
    database: Database, lease: Lease, recorder: Recorder
) -> None:
    give_back(database, lease)
    before = everything(database)
    recorder.add(STEP)
    recorder.write()
    assert recorder.fenced
    assert everything(database) == before


def lose_an_answer(monkeypatch: pytest.MonkeyPatch, *, happened: bool) -> None:
    """The connection breaks in the next commit."""
    real = Session.commit

    def commit(session: Session) -> None:
        monkeypatch.setattr(Session, "commit", real)
        if happened:
            real(session)
        raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    monkeypatch.setattr(Session, "commit", commit)


NOTED = Noted(code="cut", message="Three texts are cut.")
PARTS: dict[str, Callable[[Recorder], None]] = {
    "words": lambda recorder: recorder.add(NOTED),
    "points": lambda recorder: recorder.add(STEP),
    "checkpoint": lambda recorder: recorder.note_stored(
        3, ArtifactRef("checkpoints/x/a1/step-3", "0" * 64, 1)
    ),
}


@pytest.mark.parametrize("happened", [True, False], ids=["happened", "did-not"])
@pytest.mark.parametrize("first", PARTS)
def test_a_commit_of_which_no_answer_came_is_made_once(
    database: Database,
    job_id: UUID,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    happened: bool,
) -> None:
    for part in (first, *(PARTS.keys() - {first})):
        PARTS[part](recorder)
    lose_an_answer(monkeypatch, happened=happened)
    recorder.write()
    assert (recorder.saved_step, recorder.cancel_requested) == (None, False)  # as far as is known
    with database.write() as session:  # takes the next number, whichever this is
        repository.request_cancel(session, job_id)
        session.commit()
    recorder.add(Noted(code="cut", message="Three more."))
    recorder.write()
    assert len(points(database, job_id)) == 6
    kinds = ["started", "cancel_requested", "checkpoint", "noted", "noted"]
    assert sorted(event.kind for event in events(database, job_id)) == sorted(kinds)
    assert events(database, job_id)[-1].message == "Three more."
    assert (recorder.saved_step, recorder.cancel_requested) == (3, True)
    recorder.write()
    assert len(events(database, job_id)) == len(kinds)


def test_last_rows_wait_for_the_database(
    database: Database, job_id: UUID, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.add(STEP)
    lose_an_answer(monkeypatch, happened=False)
    recorder.flush()
    assert len(points(database, job_id)) == 6


@pytest.mark.parametrize("database_kind", ["sqlite"])  # one writer at a time
def test_the_last_rows_outwait_a_busy_database(
    settings: Settings, lease: Lease, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sqlite.BUSY_SECONDS", 0.05)
    impatient = open_database(settings)
    recorder = Recorder(impatient, lease, beat_seconds=1, drop=lambda _: None)
    recorder.add(STEP)
    other = sqlite.connect(str(settings.sqlite_path), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    freed = threading.Timer(0.3, other.close)
    freed.start()
    recorder.flush()
    freed.join()
    assert len(points(impatient, job_id)) == 6
    impatient.close()


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            recorder.write()
            for _ in range(3):
                lose_an_answer(monkeypatch, happened=False)
                recorder.write()
            lose_an_answer(monkeypatch, happened=False)
            recorder.flush()
            recorder.write()
    lines = ["the database does not answer", "the database answers again"]
    assert [line["event"] for line in logs] == lines * 2
    assert 0 <= logs[1]["seconds"] < 60


@pytest.mark.parametrize("database_kind", ["sqlite"])  # one writer at a time
def test_rows_wait_while_the_database_is_busy(
    settings: Settings, lease: Lease, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sqlite.BUSY_SECONDS", 0.05)
    impatient = open_database(settings)
    recorder = Recorder(impatient, lease, beat_seconds=1, drop=lambda _: None)
    recorder.add(STEP)
    other = sqlite.connect(str(settings.sqlite_path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    recorder.write()
    assert not recorder.fenced
    assert points(impatient, job_id) == []
    other.execute("ROLLBACK")
    other.close()
    recorder.write()
    assert len(points(impatient, job_id)) == 6
    impatient.close()
