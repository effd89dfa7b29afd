"""One attempt, from claim to result."""

import dataclasses
import errno
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.base import now
from app.database.engines import Database
from app.jobs import repository
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.queue.tables import MetricPoint
from app.resources import Resources
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.errors import ArtifactExists
from lora_core import manifest
from tests.job_rows import (
    SPEC,
    add_job,
    attempts,
    claim_next,
    dump_tables,
    events,
    get_job,
    get_state,
    points,
    preempt,
    update_job,
)
from tests.slow import slow_but
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from worker import inputs, workdir
from worker.child_process_supervisor import ChildProcessSupervisor
from worker.devices import Slot
from worker.host_health import HostHealthChecker
from worker.job_runner import LOG_TAIL_BYTES, JobRunner
from worker.spawn import ChildProcess, ChildTask, spawn_child

SUMMARY = {"labels": ["negative", "positive"], "test": {"accuracy": 0.75}}
CPU = Slot("cpu", DeviceClass.CPU)
GOOD = ("started:5", "steps:5", "evaluated:test", "succeed")


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


def run(
    resources: Resources,
    *actions: str,
    draining: threading.Event | None = None,
    spawn: Callable[[ChildTask], ChildProcess] = spawn_child,
) -> None:
    """Claim the next job and run it to its ending."""
    scripted(*actions)
    runner = JobRunner(
        resources,
        draining=draining or threading.Event(),
        host_health=HostHealthChecker(resources),
        spawn=spawn,
    )
    runner.run(claim_next(resources.database), CPU)


def in_background(
    resources: Resources, *actions: str, draining: threading.Event | None = None
) -> threading.Thread:
    thread = threading.Thread(target=run, args=(resources, *actions), kwargs={"draining": draining})
    thread.start()
    return thread


def stored(resources: Resources) -> list[Path]:
    """Directories in the store."""
    found = resources.settings.artifacts_dir.rglob(manifest.MANIFEST_FILE)
    return [file.parent for file in found]


def test_successful_run_leaves_only_artifact_and_summary(
    resources: Resources, database: Database, settings: Settings, job_id: UUID
) -> None:
    run(resources, *GOOD)
    row = get_job(database, job_id)
    assert (row.state, row.step, row.summary) == (JobState.SUCCEEDED, 5, SUMMARY)
    with database.read() as session:
        artifact = artifacts.find_newest_model_of_job(session, job_id)
        assert artifact is not None
        assert artifact.id == row.artifact_id
        directory = resources.store.local_directory(artifact.ref)
    assert manifest.verify(directory)["metrics"] == SUMMARY
    assert stored(resources) == [directory]
    assert [event.kind for event in events(database, job_id)] == [
        "started",
        "training",
        "evaluated",
        "storing",
        "succeeded",
    ]
    assert list(workdir.list_attempt_dirs(settings)) == []
    assert attempts(database, job_id)[0].exit_code == 0


def test_thread_count_is_pinned_at_the_first_attempt(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, "started:1", "signal:11")
    threads = get_job(database, job_id).spec["runtime"]["threads"]
    assert threads >= 1
    training = [event for event in events(database, job_id) if event.kind == "training"]
    assert training[0].data["threads"] == threads
    update_job(database, job_id, spec={**SPEC, "runtime": {**SPEC["runtime"], "threads": 7}})
    run(resources, "started:1", "steps:1", "exit:1")
    training = [event for event in events(database, job_id) if event.kind == "training"]
    assert training[1].data["threads"] == 7


def test_reported_failure_is_the_error_of_the_job(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, "failed:one_class", "exit:65")
    row = get_job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "one_class")
    assert row.error_message == "rotten-tomatoes has one label."
    assert row.failures_counted == 0
    assert [event.kind for event in events(database, job_id)] == ["started", "failed"]


def test_crash_is_retried_and_the_job_succeeds(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, "steps:2", "signal:11")
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 1)
    run(resources, *GOOD)
    assert get_state(database, job_id) is JobState.SUCCEEDED
    assert [(a.outcome, a.exit_code, a.signal) for a in attempts(database, job_id)] == [
        (AttemptOutcome.FAILED, None, 11),
        (AttemptOutcome.SUCCEEDED, 0, None),
    ]
    assert len(stored(resources)) == 1


def test_two_crashes_without_checkpoint_are_a_crash_loop(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    for _ in range(2):
        run(resources, "steps:3", "exit:139")
    row = get_job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "crash_loop")
    assert len(attempts(database, job_id)) == 2


def test_externally_killed_training_is_retried(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    for steps in (0, 3, 0, 2, 3):
        run(resources, "started:5", f"steps:{steps}", "signal:9")
        update_job(database, job_id, run_after=0.0)
    assert get_state(database, job_id) is JobState.QUEUED
    run(resources, *GOOD)
    assert get_state(database, job_id) is JobState.SUCCEEDED


def test_standard_error_is_not_shown_to_users(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, "complain:Traceback of /secret/path", "exit:1")
    assert "/secret" not in json.dumps([repr(rows) for rows in dump_tables(database).values()])


def test_end_of_standard_error_is_logged(resources: Resources, job_id: UUID) -> None:
    with structlog.testing.capture_logs() as logs:
        run(resources, "complain:" + "x" * 5_000, "complain:Aborted", "exit:1")
    (line,) = [line for line in logs if line["event"] == "the process exited"]
    assert line["log"] == "x" * (LOG_TAIL_BYTES - 9) + "\nAborted\n"


def test_nothing_starts_on_a_full_disk(
    resources: Resources, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    short = resources.settings.model_copy(update={"min_free_bytes": 2**60})
    run(
        Resources(short, database, resources.store, resources.notifier),
        f"environment:{tmp_path}/ran",
    )
    row = get_job(database, job_id)
    assert (row.state, row.waiting_code) == (JobState.QUEUED, "storage_unavailable")
    assert row.waiting_message is not None
    assert f"disk space are free on {socket.gethostname()};" in row.waiting_message
    assert not (tmp_path / "ran").exists()


def test_unwritable_directory_is_not_a_counted_failure(
    resources: Resources, database: Database, settings: Settings, job_id: UUID
) -> None:
    settings.work_dir.touch()  # no folder
    run(resources, *GOOD)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert row.waiting_code == "storage_unavailable"


def test_crash_on_an_unusable_directory_is_not_counted(
    resources: Resources, database: Database, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_: Settings) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(workdir, "check_writable", read_only)
    run(resources, "started:5", "exit:1")
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert row.waiting_message is not None
    assert "Read-only file system" in row.waiting_message


def test_a_cancel_ends_the_job(resources: Resources, database: Database, job_id: UUID) -> None:
    thread = in_background(resources, "started:5", "hang")
    wait_until(lambda: len(events(database, job_id)) == 2)
    update_job(database, job_id, cancel_requested_at=now())
    thread.join(30)
    assert get_state(database, job_id) is JobState.CANCELLED
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.CANCELLED
    assert stored(resources) == []


def test_drain_requeues_without_counting_a_failure(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    draining = threading.Event()
    thread = in_background(resources, "started:5", "hang", draining=draining)
    wait_until(lambda: len(events(database, job_id)) == 2)
    draining.set()
    thread.join(30)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.PREEMPTED


@pytest.mark.parametrize(
    ("actions", "exit_status"),
    [(("started:5", "hang"), (75, None)), (("ignore-term", "started:5", "hang"), (None, 9))],
)
def test_pause_requeues_without_counting_a_failure(
    resources: Resources,
    database: Database,
    job_id: UUID,
    actions: tuple[str, ...],
    exit_status: tuple[int | None, int | None],
) -> None:
    quick = resources.settings.model_copy(update={"stop_grace_seconds": 2.0})
    thread = in_background(dataclasses.replace(resources, settings=quick), *actions)
    wait_until(lambda: len(events(database, job_id)) == 2)
    request_pause(database, job_id)
    thread.join(30)
    row = get_job(database, job_id)
    assert (row.paused, row.failures_counted) == (True, 0)
    (attempt,) = attempts(database, job_id)
    assert attempt.outcome == AttemptOutcome.PREEMPTED
    assert (attempt.exit_code, attempt.signal) == exit_status
    assert events(database, job_id)[-1].message == "A pause was requested. The job is paused."


def test_job_that_ends_in_spite_of_a_pause_has_succeeded(
    resources: Resources, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    started, *others = GOOD
    until = f"until:{tmp_path / 'go'}"
    thread = in_background(resources, "ignore-term", started, until, *others)
    wait_until(lambda: len(events(database, job_id)) == 2)
    request_pause(database, job_id)
    update_job(database, job_id, lease_expires_at=1.0)
    wait_until(lambda: (get_job(database, job_id).lease_expires_at or 0) > 1.0, what="a heartbeat")
    (tmp_path / "go").touch()
    thread.join(30)
    row = get_job(database, job_id)
    assert (row.state, row.paused) == (JobState.SUCCEEDED, False)
    assert len(stored(resources)) == 1


def request_pause(database: Database, job_id: UUID) -> None:
    with database.write() as session:
        repository.request_pause(session, job_id)


def test_draining_worker_starts_nothing(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    draining = threading.Event()
    draining.set()
    run(resources, "failed:started_anyway", "exit:65", draining=draining)
    assert get_state(database, job_id) is JobState.QUEUED


def test_lease_is_renewed_while_files_are_handled(
    resources: Resources, database: Database, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(work: Callable[..., Any]) -> Callable[..., Any]:
        def wait_for_a_beat(*given: Any, **named: Any) -> Any:
            before = get_job(database, job_id).lease_expires_at or 0
            wait_until(lambda: (get_job(database, job_id).lease_expires_at or 0) > before)
            return work(*given, **named)

        return wait_for_a_beat

    monkeypatch.setattr(inputs, "resolve_inputs", slow(inputs.resolve_inputs))
    monkeypatch.setattr(
        resources.store,
        "move_directory_into_store",
        slow(resources.store.move_directory_into_store),
    )
    run(resources, *GOOD)
    row = get_job(database, job_id)
    assert (row.state, row.step, row.total_steps) == (JobState.SUCCEEDED, 5, 5)


def test_finished_training_without_lease_publishes_nothing(
    resources: Resources, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    claimed = claim_next(database)
    scripted("started:5", "first:" + str(tmp_path / "go"), *GOOD)
    runner = JobRunner(
        resources, draining=threading.Event(), host_health=HostHealthChecker(resources)
    )
    thread = threading.Thread(target=runner.run, args=(claimed, CPU))
    thread.start()
    wait_until(lambda: len(events(database, job_id)) == 2)
    preempt(database, claimed.lease)
    before = dump_tables(database)
    thread.join(30)
    assert dump_tables(database) == before
    assert stored(resources) == []


SAVED = ("resumed:exactly", "started:5", "steps:2", "checkpoint:2")


def test_run_resumes_from_its_last_checkpoint(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, *SAVED, "steps:3", "signal:9")
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 1)
    run(resources, "resumed:exactly", "started:5", "steps:5", "succeed")
    losses = [p.step for p in points(database, job_id) if p.name == "loss"]
    assert losses == [1, 2, 3, 4, 5]
    row = get_job(database, job_id)
    assert (row.state, row.resume_exact) == (JobState.SUCCEEDED, True)
    assert [each.first_step for each in attempts(database, job_id)] == [0, 2]
    by_kind = {event.kind: event for event in events(database, job_id)}
    assert by_kind["checkpoint"].data == {"step": 2}
    assert by_kind["resumed"].level == "info"


def test_inexact_resume_is_reported(resources: Resources, database: Database, job_id: UUID) -> None:
    run(resources, *SAVED, "signal:9")
    run(resources, "resumed:differently", *GOOD)
    assert not get_job(database, job_id).resume_exact
    (resumed,) = [event for event in events(database, job_id) if event.kind == "resumed"]
    assert (resumed.level, "threads 2 → 1" in resumed.message) == ("warning", True)


@pytest.mark.parametrize("exact", slow_but([True, False], False))
def test_job_is_as_exact_as_the_one_it_continues(
    resources: Resources, database: Database, job_id: UUID, exact: bool
) -> None:
    old = add_job(database, resume_exact=exact, state=JobState.FAILED, finished_at=1.0)
    update_job(database, job_id, continues=old)
    run(resources, *SAVED, "signal:9")
    run(resources, "resumed:exactly", *GOOD)
    assert get_job(database, job_id).resume_exact is exact


@pytest.mark.parametrize(
    ("refusal", "step"), [((), 2), (("picky",), 0)], ids=["serves", "does-not"]
)
def test_resumed_run_shows_its_step(
    resources: Resources,
    database: Database,
    job_id: UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: tuple[str, ...],
    step: int,
) -> None:
    shown: list[int] = []
    real = inputs.resolve_inputs

    def locate(*given: Any, **named: Any) -> inputs.LocalInputs:
        update_job(database, job_id, lease_expires_at=1.0)
        wait_until(lambda: (get_job(database, job_id).lease_expires_at or 0) > 1.0, what="a beat")
        shown.append(get_job(database, job_id).step)
        return real(*given, **named)

    run(resources, *SAVED, "signal:9")
    monkeypatch.setattr(inputs, "resolve_inputs", locate)
    thread = in_background(
        resources, *refusal, "started:5", f"until:{tmp_path / 'go'}", "steps:5", "succeed"
    )
    kinds = ["training", "training"]
    wait_until(lambda: [e.kind for e in events(database, job_id) if e.kind in kinds] == kinds)
    shown.append(get_job(database, job_id).step)
    (tmp_path / "go").touch()
    thread.join(30)
    assert (shown, get_state(database, job_id)) == ([2, step], JobState.SUCCEEDED)


@pytest.mark.parametrize("ending", ["the last rows", "the last transaction"])
def test_result_waits_for_the_database_without_limit(
    resources: Resources,
    database: Database,
    job_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    real = Session.commit
    refused: list[bool] = []

    def commit(session: Session) -> None:
        reported = any(isinstance(row, MetricPoint) and row.step == 5 for row in session.new)
        stored = (resources.settings.artifacts_dir / f"jobs/{job_id}/a1").exists()
        if len(refused) < 4 and (reported if ending == "the last rows" else stored):
            refused.append(True)
            raise OperationalError("COMMIT", {}, Exception("the connection is gone"))
        real(session)

    impatient = resources.settings.model_copy(update={"hub_timeout_seconds": 0.0})
    monkeypatch.setattr("worker.outages.MAX_DELAY_SECONDS", 0.1)
    monkeypatch.setattr(Session, "commit", commit)
    run(dataclasses.replace(resources, settings=impatient), *SAVED, "steps:5", "succeed")
    assert len(refused) == 4
    assert get_state(database, job_id) is JobState.SUCCEEDED
    assert len(attempts(database, job_id)) == 1
    assert [p.step for p in points(database, job_id) if p.name == "loss"] == [1, 2, 3, 4, 5]


def test_checkpoint_counts_as_progress_on_worker_errors(
    resources: Resources, database: Database, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(resources, "signal:9")

    def broken(*_: Any) -> Any:
        raise FileNotFoundError(errno.ENOENT, "No such file")

    monkeypatch.setattr("worker.finalize.publish_artifact_and_finish_attempt", broken)
    run(resources, *SAVED, "succeed")
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 1)


@pytest.mark.parametrize("harm", slow_but(["flip", "truncate", "remove"], "flip"))
def test_damaged_checkpoint_is_skipped(
    resources: Resources, database: Database, job_id: UUID, harm: str
) -> None:
    run(resources, *SAVED, "steps:3", "checkpoint:3", "signal:9")
    (file,) = resources.settings.artifacts_dir.rglob("step-3/state")
    if harm == "remove":
        file.unlink()
    else:
        file.write_text("4" if harm == "flip" else "")
    run(resources, "resumed:exactly", "started:5", "steps:5", "succeed")
    assert get_state(database, job_id) is JobState.SUCCEEDED
    by_kind = {event.kind: event for event in events(database, job_id)}
    assert by_kind["checkpoint_rejected"].data["step"] == 3
    assert by_kind["resumed"].data["step"] == 2
    assert [each.first_step for each in attempts(database, job_id)] == [0, 2]
    assert [p.step for p in points(database, job_id) if p.name == "loss"] == [1, 2, 3, 4, 5]


def test_run_restarts_if_all_checkpoints_are_rejected(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, *SAVED, "steps:3", "checkpoint:3", "signal:9")
    run(resources, "picky", "started:5", "steps:5", "succeed")
    assert get_state(database, job_id) is JobState.SUCCEEDED
    rejected = [e.message for e in events(database, job_id) if e.kind == "checkpoint_rejected"]
    assert rejected == [
        "The checkpoint of step 3 cannot be used (the data differs); resuming from step 2.",
        "The checkpoint of step 2 cannot be used (the data differs); resuming from the beginning.",
    ]
    assert [each.first_step for each in attempts(database, job_id)] == [0, 0]
    assert [p.step for p in points(database, job_id) if p.name == "loss"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("stop", "state"),
    [
        (lambda supervisor: supervisor._draining.set(), JobState.QUEUED),
        pytest.param(
            lambda supervisor: setattr(supervisor._recorder, "cancel_requested", True),
            JobState.CANCELLED,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda supervisor: setattr(supervisor, "_stop_at", 0.0),
            JobState.FAILED,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["drain", "cancel", "time limit"],
)
def test_stopped_process_is_not_started_again_from_another_checkpoint(
    resources: Resources,
    database: Database,
    job_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    stop: Callable[[ChildProcessSupervisor], object],
    state: JobState,
) -> None:
    run(resources, *SAVED, "steps:3", "checkpoint:3", "signal:9")
    update_job(database, job_id, time_limit_seconds=3600)
    check, spawned = ChildProcessSupervisor._check_stop_reasons, []

    def stop_after_failure(supervisor: ChildProcessSupervisor) -> None:
        if supervisor._failure is not None:
            stop(supervisor)
        check(supervisor)

    def spawn(task: ChildTask) -> ChildProcess:
        spawned.append(task)
        return spawn_child(task)

    monkeypatch.setattr(ChildProcessSupervisor, "_check_stop_reasons", stop_after_failure)
    run(resources, "picky", "succeed", spawn=spawn)
    assert len(spawned) == 1
    row = get_job(database, job_id)
    assert row.state == state
    assert state is not JobState.FAILED or row.error_detail == {"checkpoint_step": 2}
    rejected = [
        event.data for event in events(database, job_id) if event.kind == "checkpoint_rejected"
    ]
    assert [data["step"] for data in rejected] == [3]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device", "/data"), ArtifactExists(key="checkpoints")],
)
def test_failed_checkpoint_upload_does_not_stop_the_training(
    resources: Resources,
    database: Database,
    job_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    real = resources.store.move_directory_into_store

    def put(directory: Path, key: str) -> Any:
        if key.startswith("checkpoints/"):
            raise error
        return real(directory, key)

    monkeypatch.setattr(resources.store, "move_directory_into_store", put)
    run(resources, *SAVED, *GOOD[1:])
    assert get_state(database, job_id) is JobState.SUCCEEDED
    (lost,) = [event for event in events(database, job_id) if event.kind == "checkpoint_lost"]
    reason = error.strerror if isinstance(error, OSError) else str(error)
    assert lost.message == f"Cannot store the checkpoint of step 2: {reason}"


def test_links_to_other_directories_are_not_followed(
    resources: Resources, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    """What a training reports may not move, publish or remove what only the worker can reach."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "state").write_text("1")
    manifest.create_and_save(other, {"step": 1, "metrics": {}})
    run(resources, *SAVED[:1], f"linked_checkpoint:{other}", f"linked_output:{other}")
    assert (other / "state").read_text() == "1"
    assert manifest.verify(other)["step"] == 1
    kinds = [event.kind for event in events(database, job_id)]
    assert "checkpoint_lost" in kinds
    assert get_job(database, job_id).artifact_id is None


def test_time_limit_includes_all_attempts(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    update_job(database, job_id, time_limit_seconds=60, running_seconds=57)
    run(resources, *SAVED, "hang")
    row = get_job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "time_limit")
    assert row.error_detail == {"checkpoint_step": 2}
    refused = add_job(database, time_limit_seconds=60)
    run(resources, *SAVED, "signal:9")
    update_job(database, refused, running_seconds=57)
    run(resources, "picky", "started:5", "hang")
    assert get_job(database, refused).error_detail == {"checkpoint_step": None}
    late = add_job(database, time_limit_seconds=60, running_seconds=61)
    run(resources, "failed:started_anyway", "exit:65")
    assert get_job(database, late).error_code == "time_limit"


def test_gpu_job_sees_only_its_gpu(
    resources: Resources, database: Database, job_id: UUID, tmp_path: Path
) -> None:
    scripted(f"environment:{tmp_path / 'seen'}", f"copy-spec:{tmp_path / 'spec'}")
    asked = get_job(database, job_id).spec["runtime"].get("device")
    runner = JobRunner(
        resources, draining=threading.Event(), host_health=HostHealthChecker(resources)
    )
    runner.run(claim_next(database), Slot("cuda:1", DeviceClass.GPU))
    assert json.loads((tmp_path / "seen").read_text())["CUDA_VISIBLE_DEVICES"] == "1"
    assert json.loads((tmp_path / "spec").read_text())["runtime"]["device"] == "cuda"
    assert get_job(database, job_id).spec["runtime"].get("device") == asked


@pytest.mark.parametrize(
    ("changes", "sees"),
    [
        ({}, False),
        pytest.param(
            {"data": {"source": {"train": "reviews:1", "test": "hubs:2"}}},
            False,
            marks=pytest.mark.slow,
        ),
        ({"base_revision": "a" * 40}, True),
        pytest.param({"data": {"source": "hub:imdb"}}, True, marks=pytest.mark.slow),
        ({"data": {"source": {"train": "reviews:1", "test": "hub:imdb"}}}, True),
    ],
)
def test_only_downloading_jobs_see_the_proxy_and_the_token(
    resources: Resources,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    sees: bool,
) -> None:
    monkeypatch.setenv("https_proxy", "http://user:hunter2@proxy:3128")
    monkeypatch.setenv("HF_TOKEN", "hf_hunter3")
    monkeypatch.setenv("ALL_PROXY", "http://user:hunter4@proxy:3128")
    add_job(database, spec=SPEC | changes)
    run(resources, f"environment:{tmp_path / 'seen'}")
    seen = (tmp_path / "seen").read_text()
    assert [secret in seen for secret in ("hunter2", "hf_hunter3", "hunter4")] == [sees] * 3
