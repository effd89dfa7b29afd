"""Events are written once, in order, and only by the owner of the job."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from uuid import UUID

import pysqlite3.dbapi2 as sqlite
import pytest
import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.base import now
from app.database.engines import Database, open_database
from app.jobs import repository
from app.queue import leases
from app.queue.fencing import Lease
from app.settings import Settings
from app.storage.store import ArtifactRef
from lora_core.events import Evaluated, NoteLogged, Phase, ProgressReported, Resumed
from lora_core.specs.data import Split
from tests.clock import Clock
from tests.job_rows import (
    add_job,
    claim_next,
    dump_tables,
    events,
    get_job,
    points,
    preempt,
    update_job,
)
from tests.waiting import wait_until
from tests.worker.test_event_rows import STEP
from worker.recorder import (
    MAX_BATCH_ROWS,
    MAX_MESSAGE_CHARS,
    CheckpointRow,
    Recorder,
    running_periodically_in_thread,
)


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


@pytest.fixture
def lease(database: Database, job_id: UUID) -> Lease:
    return claim_next(database).lease


@pytest.fixture
def recorder(database: Database, lease: Lease) -> Recorder:
    return Recorder(database, lease, heartbeat_seconds=0.3, delete_artifact=lambda _: None)


def test_metrics_and_events_share_sequence_numbers(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    recorder.add_event(STEP)
    recorder.add_event(NoteLogged(code="cut", message="Three texts are cut."))
    recorder.add_event(STEP.model_copy(update={"step": 4}))
    recorder.renew_lease_and_write()
    numbers = [row.seq for row in points(database, job_id)]
    assert numbers == [2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14]  # 1 is the event of the claim
    assert [(row.seq, row.kind) for row in events(database, job_id)] == [
        (1, "started"),
        (8, "noted"),
    ]
    assert {row.attempt for row in points(database, job_id)} == {1}
    row = get_job(database, job_id)
    assert (row.step, row.stream_seq) == (4, 14)
    recorder.renew_lease_and_write()
    assert len(points(database, job_id)) == 12


def test_the_last_evaluation_does_not_repeat_a_point(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    for step, loss in ((1, 0.5), (2, 0.6), (1, 0.5)):
        recorder.add_event(Evaluated(step=step, split=Split.VALIDATION, metrics={"loss": loss}))
    recorder.renew_lease_and_write()
    recorder.add_event(Evaluated(step=1, split=Split.VALIDATION, metrics={"loss": 0.5}))
    recorder.add_event(Evaluated(step=1, split=Split.TEST, metrics={"loss": 0.4}))
    recorder.renew_lease_and_write()
    found = [(row.split, row.step, row.value) for row in points(database, job_id)]
    assert found == [("validation", 1, 0.5), ("validation", 2, 0.6), ("test", 1, 0.4)]


def test_messages_use_public_names_and_are_truncated(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    recorder.to_public = lambda value: (
        value.replace("/data/1.csv", "reviews:1") if isinstance(value, str) else value
    )
    recorder.add_event(NoteLogged(code="cut", message="/data/1.csv has long texts." + "x" * 10_000))
    recorder.renew_lease_and_write()
    message = events(database, job_id)[-1].message
    assert message.startswith("reviews:1 has long texts.")
    assert len(message) == MAX_MESSAGE_CHARS


def test_write_is_due_after_many_rows_or_some_time(
    database: Database, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("worker.recorder.time", SimpleNamespace(monotonic=clock))
    recorder = Recorder(database, lease, heartbeat_seconds=5, delete_artifact=lambda _: None)
    assert not recorder.is_due()
    while len(recorder._rows) < MAX_BATCH_ROWS:
        assert not recorder.is_due()
        recorder.add_event(STEP.model_copy(update={"step": recorder.step + 1}))
    assert recorder.is_due()
    recorder.renew_lease_and_write()
    clock.now += 4.9
    assert not recorder.is_due()
    clock.now += 0.1  # the beat, with nothing to tell
    assert recorder.is_due()


def test_progress_report_advances_the_step(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    recorder.add_event(ProgressReported(phase=Phase.TRAINING, step=9))
    recorder.renew_lease_and_write()
    assert get_job(database, job_id).step == 9


def test_cancel_request_is_noticed(database: Database, job_id: UUID, recorder: Recorder) -> None:
    recorder.renew_lease_and_write()
    assert not recorder.cancel_requested
    update_job(database, job_id, cancel_requested_at=now())
    recorder.renew_lease_and_write()
    assert recorder.cancel_requested


def test_pause_request_is_noticed_and_so_is_its_withdrawal(
    database: Database, job_id: UUID, recorder: Recorder
) -> None:
    for requested_at in (None, now(), None):
        update_job(database, job_id, pause_requested_at=requested_at)
        recorder.renew_lease_and_write()
        assert recorder.pause_requested is (requested_at is not None)


def test_inexact_resume_is_recorded_once(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[bool] = []
    monkeypatch.setattr(leases, "record_resume_exactness", lambda *_, exact: recorded.append(exact))
    recorder.add_event(Resumed(step=1, exact=False))
    recorder.renew_lease_and_write()
    recorder.renew_lease_and_write()
    assert recorded == [False]


def test_periodic_calls_go_on_after_an_error() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(len(calls))
        raise ValueError

    with running_periodically_in_thread(fail, seconds=0.01):
        wait_until(lambda: len(calls) > 1)


def test_lost_lease_writes_nothing(database: Database, lease: Lease, recorder: Recorder) -> None:
    preempt(database, lease)
    before = dump_tables(database)
    recorder.add_event(STEP)
    recorder.renew_lease_and_write()
    assert recorder.lease_lost
    assert dump_tables(database) == before


def lose_an_answer(monkeypatch: pytest.MonkeyPatch, *, happened: bool) -> None:
    """The connection breaks in the next commit."""
    real = Session.commit

    def commit(session: Session) -> None:
        monkeypatch.setattr(Session, "commit", real)
        if happened:
            real(session)
        raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    monkeypatch.setattr(Session, "commit", commit)


NOTED = NoteLogged(code="cut", message="Three texts are cut.")
PARTS: dict[str, Callable[[Recorder], None]] = {
    "words": lambda recorder: recorder.add_event(NOTED),
    "points": lambda recorder: recorder.add_event(STEP),
    "checkpoint": lambda recorder: recorder.add_row(
        CheckpointRow(3, ArtifactRef("checkpoints/x/a1/step-3", "0" * 64, 1))
    ),
}


@pytest.mark.parametrize("happened", [True, False], ids=["happened", "did-not"])
@pytest.mark.parametrize("first", PARTS)
def test_uncertain_commit_is_written_once(
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
    recorder.renew_lease_and_write()
    assert (recorder.saved_step, recorder.cancel_requested) == (None, False)  # not reported yet
    with database.write() as session:  # takes the next number, whichever this is
        repository.request_cancel(session, job_id)
    recorder.add_event(NoteLogged(code="cut", message="Three more."))
    recorder.renew_lease_and_write()
    assert len(points(database, job_id)) == 6
    kinds = ["started", "cancel_requested", "checkpoint", "noted", "noted"]
    assert sorted(event.kind for event in events(database, job_id)) == sorted(kinds)
    assert events(database, job_id)[-1].message == "Three more."
    assert (recorder.saved_step, recorder.cancel_requested) == (3, True)
    recorder.renew_lease_and_write()
    assert len(events(database, job_id)) == len(kinds)


def test_flush_waits_for_the_database(
    database: Database, job_id: UUID, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.add_event(STEP)
    lose_an_answer(monkeypatch, happened=False)
    recorder.flush()
    assert len(points(database, job_id)) == 6


@pytest.mark.parametrize("database_kind", ["sqlite"])  # one writer at a time
def test_flush_outlasts_a_busy_database(
    settings: Settings, lease: Lease, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
    impatient = open_database(settings)
    recorder = Recorder(impatient, lease, heartbeat_seconds=1, delete_artifact=lambda _: None)
    recorder.add_event(STEP)
    other = sqlite.connect(
        str(settings.default_sqlite_path), isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    freed = threading.Timer(0.3, other.close)
    freed.start()
    recorder.flush()
    freed.join()
    assert len(points(impatient, job_id)) == 6
    impatient.close()


def test_outage_is_logged_at_start_and_end(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            recorder.renew_lease_and_write()
            for _ in range(3):
                lose_an_answer(monkeypatch, happened=False)
                recorder.renew_lease_and_write()
            lose_an_answer(monkeypatch, happened=False)
            recorder.flush()
            recorder.renew_lease_and_write()
    lines = ["the database is unreachable", "the database is reachable again"]
    assert [line["event"] for line in logs] == lines * 2
    assert 0 <= logs[1]["seconds"] < 60


@pytest.mark.parametrize("database_kind", ["sqlite"])  # one writer at a time
def test_rows_are_buffered_while_the_database_is_busy(
    settings: Settings, lease: Lease, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
    impatient = open_database(settings)
    recorder = Recorder(impatient, lease, heartbeat_seconds=1, delete_artifact=lambda _: None)
    recorder.add_event(STEP)
    other = sqlite.connect(str(settings.default_sqlite_path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    recorder.renew_lease_and_write()
    assert not recorder.lease_lost
    assert points(impatient, job_id) == []
    other.execute("ROLLBACK")
    other.close()
    recorder.renew_lease_and_write()
    assert len(points(impatient, job_id)) == 6
    impatient.close()
