"""How failures are classified."""

import errno
import signal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import OperationalError

from app.datasets.errors import DatasetNotFound
from app.queue.enums import JobKind
from app.queue.fencing import ClaimedJob, Lease, StoredCheckpoint
from app.queue.transitions import (
    AttemptResult,
    Cancelled,
    InfrastructureUnavailable,
    Paused,
    PermanentFailure,
    Preempted,
    ProcessExitStatus,
    RetryableFailure,
)
from app.settings import Settings
from app.storage.errors import StorageRefused
from app.storage.store import ArtifactRef
from lora_core import events
from worker import failures
from worker.child_process_supervisor import ChildResult, StopReason
from worker.failures import attempt_result_from_child

SETTINGS = Settings(max_failures=3, retry_seconds=10)
OUTAGE = OperationalError("SELECT 1", {}, Exception("gone"))
ONE_CLASS = events.Failed(code="one_class", message="Only one label.", detail={"label": "x"})


def claimed(**values: Any) -> ClaimedJob:
    fields: dict[str, Any] = {
        "lease": Lease(uuid4(), 1, "alice", 60),
        "kind": JobKind.TRAINING,
        "spec": {},
        "dataset_ids": {},
        "register_as": None,
        "promote_to": None,
        "failure_count": 0,
        "furthest_step": 0,
        "failed_steps": frozenset(),
        "checkpoint": None,
        "time_limit_seconds": None,
        "running_seconds": 0.0,
        "waiting_code": None,
        "waited_seconds": None,
        **values,
    }
    return ClaimedJob(**fields)


def classify(
    *,
    code: int | None = None,
    number: int | None = None,
    stop_reason: StopReason | None = None,
    failed: events.Failed | None = None,
    saved: int | None = None,
    oom_killed: bool = False,
    step: int = 0,
    **values: Any,
) -> AttemptResult:
    result = ChildResult(
        ProcessExitStatus(code, number), stop_reason, failed, saved, oom_killed, step
    )
    return attempt_result_from_child(result, claimed(**values), SETTINGS)


def classify_error(
    error: Exception, *, saved: int | None = None, step: int = 0, **values: Any
) -> AttemptResult:
    return failures.attempt_result_from_error(
        error, claimed(**values), SETTINGS, saved_step=saved, step=step
    )


def failed_at(*steps: int) -> dict[str, Any]:
    """Return the fields of a job whose attempts failed at these steps."""
    return {
        "failure_count": len(steps),
        "furthest_step": max(steps),
        "failed_steps": frozenset(steps),
    }


def test_reported_failure_fails_at_once_with_its_code() -> None:
    assert classify(code=65, failed=ONE_CLASS) == PermanentFailure(
        "one_class", "Only one label.", {"label": "x"}
    )


@pytest.mark.parametrize("code", ["data_not_found", "base_not_found", "artifact_corrupt"])
def test_missing_verified_input_is_retried(code: str) -> None:
    """The store was unreachable while the process read, and is reachable again."""
    event = events.Failed(code=code, message="No data 'x.csv': there is no such file.")
    result = ChildResult(ProcessExitStatus(65), None, event)
    answer = attempt_result_from_child(result, claimed(), SETTINGS, mentions_input=True)
    assert answer == RetryableFailure(code, event.message, 10)
    assert isinstance(
        attempt_result_from_child(result, claimed(failure_count=2), SETTINGS, mentions_input=True),
        PermanentFailure,
    )
    assert isinstance(attempt_result_from_child(result, claimed(), SETTINGS), PermanentFailure)
    other = ChildResult(ProcessExitStatus(65), None, ONE_CLASS)
    assert isinstance(
        attempt_result_from_child(other, claimed(), SETTINGS, mentions_input=True), PermanentFailure
    )


def test_reported_failure_counts_during_a_drain() -> None:
    assert isinstance(
        classify(code=65, failed=ONE_CLASS, stop_reason=StopReason.DRAIN), PermanentFailure
    )


def test_exit_code_without_failure_event_is_a_crash() -> None:
    assert classify(code=65) == RetryableFailure(
        "crashed", "The process ended unexpectedly (exit code 65).", 10
    )


@pytest.mark.parametrize(
    ("code", "number"), [(75, None), (1, None), (None, signal.SIGTERM), (None, signal.SIGKILL)]
)
def test_requested_stop_is_not_a_failure(code: int | None, number: int | None) -> None:
    assert classify(stop_reason=StopReason.CANCEL, code=code, number=number) == Cancelled()
    assert classify(stop_reason=StopReason.DRAIN, code=code, number=number) == Preempted()
    assert classify(stop_reason=StopReason.PAUSE, code=code, number=number) == Paused()


def test_voluntary_stop_requeues_the_job() -> None:
    assert classify(code=75) == Preempted()


def test_signal_is_named_in_the_message() -> None:
    answer = classify(number=signal.SIGSEGV)
    assert isinstance(answer, RetryableFailure)
    assert "signal 11, Segmentation fault" in answer.message
    answer = classify(number=signal.SIGKILL)
    assert isinstance(answer, RetryableFailure)
    assert "memory" in answer.message


def test_stall_is_retried() -> None:
    answer = classify(number=signal.SIGABRT, stop_reason=StopReason.STALL)
    assert isinstance(answer, RetryableFailure)
    assert answer.code == "stalled"
    assert "900 s" in answer.message


def test_two_failures_at_the_same_step_are_a_crash_loop() -> None:
    answer = classify(number=signal.SIGSEGV, step=4, **failed_at(4))
    assert isinstance(answer, PermanentFailure)
    assert answer.code == "crash_loop"
    assert "No progress" in answer.message
    assert isinstance(classify(number=11, saved=6, step=6, **failed_at(4)), RetryableFailure)
    stalled = classify(number=6, stop_reason=StopReason.STALL, step=3, **failed_at(4))
    assert isinstance(stalled, PermanentFailure)
    assert stalled.code == "stalled"


def test_crash_at_another_step_is_retried() -> None:
    assert isinstance(classify(number=11, step=3, **failed_at(4)), RetryableFailure)
    assert isinstance(
        classify(number=11, step=5, **failed_at(4, 2)), RetryableFailure
    )  # it got further
    last = classify(number=11, step=3, **failed_at(4, 2))
    assert isinstance(last, PermanentFailure)
    assert last.code == "crashed"


@pytest.mark.parametrize(("step", "code"), [(0, "crashed"), (4, "crash_loop"), (3, "crashed")])
def test_external_kills_fail_only_after_max_failures(step: int, code: str) -> None:
    furthest = max(step, 4) if step else 0
    reached: dict[str, Any] = {"furthest_step": furthest}
    assert isinstance(classify(number=9, step=step, failure_count=1, **reached), RetryableFailure)
    last = classify(number=9, step=step, failure_count=2, **reached)
    assert isinstance(last, PermanentFailure)
    assert (last.code, "failure 3" in last.message) == (code, True)
    assert isinstance(
        classify(number=9, step=furthest + 1, failure_count=2, **reached), RetryableFailure
    )


def test_job_fails_after_max_failures() -> None:
    assert isinstance(classify(code=1, failure_count=1), RetryableFailure)
    assert isinstance(classify(code=1, failure_count=2, saved=9), RetryableFailure)  # progress
    answer = classify(code=1, failure_count=2)
    assert isinstance(answer, PermanentFailure)
    assert answer.code == "crashed"
    assert "failure 3" in answer.message


def test_full_disk_is_waited_for_without_limit() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    answer = classify_error(error)
    assert isinstance(answer, InfrastructureUnavailable)
    assert (answer.code, "disk" in answer.message) == ("storage_unavailable", True)
    assert 8 <= answer.seconds <= 12
    for waited in (200, 3700, 7 * 86_400):
        later = classify_error(error, waited_seconds=waited, waiting_code="storage_unavailable")
        assert isinstance(later, InfrastructureUnavailable)
        assert 40 <= later.seconds <= 72


@pytest.mark.parametrize("error", [OUTAGE, StorageRefused(reason="403"), OSError(errno.EIO, "No")])
def test_installation_outages_are_waited_for_without_limit(error: Exception) -> None:
    answer = classify_error(error, waited_seconds=7 * 86_400, waiting_code="storage_unavailable")
    assert isinstance(answer, InfrastructureUnavailable)


def test_hub_is_waited_for_up_to_the_patience_limit() -> None:
    event = events.Failed(code="hub_unavailable", message="No answer.")
    for waited, code in ((3500, "hub_unavailable"), (3700, "storage_unavailable")):
        answer = classify(code=65, failed=event, waited_seconds=waited, waiting_code=code)
        assert isinstance(answer, InfrastructureUnavailable)
        assert answer.code == "hub_unavailable"
    last = classify(code=65, failed=event, waited_seconds=3700, waiting_code="hub_unavailable")
    assert isinstance(last, PermanentFailure)
    assert (last.code, "3,600 s" in last.message) == ("hub_unavailable", True)


@pytest.mark.parametrize("code", ["disk_full", "hub_unavailable"])
def test_job_waits_for_disk_and_hub(code: str) -> None:
    event = events.Failed(code=code, message="Not now.")
    assert isinstance(classify(code=65, failed=event, **failed_at(0, 0)), InfrastructureUnavailable)


def test_refusing_store_is_waited_for() -> None:
    answer = classify_error(StorageRefused(reason="403 Forbidden"), **failed_at(0, 0))
    assert isinstance(answer, InfrastructureUnavailable)
    assert "403 Forbidden" in answer.message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_unusable_disk_is_waited_for(number: int) -> None:
    error = OSError(number, "No", "/secret/path")
    answer = classify_error(error, **failed_at(0, 0))
    assert isinstance(answer, InfrastructureUnavailable)
    assert "LORAWORKS_DATA_DIR" in answer.message
    assert "/secret" not in answer.message


def test_unreachable_database_is_waited_for() -> None:
    assert isinstance(classify_error(OUTAGE), InfrastructureUnavailable)


def test_new_checkpoint_resets_the_waiting_time() -> None:
    event = events.Failed(code="hub_unavailable", message="Not now.")
    waited: dict[str, Any] = {"waited_seconds": 3700, "waiting_code": "hub_unavailable"}
    for saved, kind in ((None, PermanentFailure), (9, InfrastructureUnavailable)):
        assert isinstance(classify(code=65, failed=event, saved=saved, **waited), kind)


def test_oom_killed_is_retried_once() -> None:
    event = events.Failed(code="oom_host", message="No memory.")
    for fields in ({"code": 65, "failed": event}, {"number": 9, "oom_killed": True}):
        first = classify(**fields)
        assert isinstance(first, RetryableFailure)
        assert (first.code, "micro_batch_tokens" in first.message) == ("oom_host", True)
        again = classify(**fields, **failed_at(0))
        assert isinstance(again, PermanentFailure)
        assert again.code == "oom_host"


def test_time_limit_failure_names_the_checkpoint_step() -> None:
    answer = classify(code=75, stop_reason=StopReason.TIME_LIMIT, time_limit_seconds=60, saved=7)
    assert isinstance(answer, PermanentFailure)
    assert (answer.code, answer.detail) == ("time_limit", {"checkpoint_step": 7})
    assert "60 s" in answer.message
    checkpoint = StoredCheckpoint(uuid4(), 1, 4, ArtifactRef("k", "0" * 64, 1))
    answer = classify(
        code=75,
        stop_reason=StopReason.TIME_LIMIT,
        time_limit_seconds=2.592e6,
        checkpoint=checkpoint,
    )
    assert isinstance(answer, PermanentFailure)
    assert "2,592,000 s" in answer.message
    assert answer.detail == {"checkpoint_step": 4}


def test_detail_of_a_failure_is_json_that_postgresql_stores() -> None:
    failed = events.Failed(code="c", message="m", detail={"at": [float("nan"), 1.5]})
    answer = classify(code=65, failed=failed)
    assert answer == PermanentFailure("c", "m", {"at": [None, 1.5]})


def test_known_worker_error_keeps_code_and_detail() -> None:
    dataset_id = uuid4()
    answer = classify_error(DatasetNotFound(ref=dataset_id))
    assert answer == PermanentFailure(
        "dataset_not_found", f"Dataset {dataset_id} does not exist.", {"ref": str(dataset_id)}
    )


def test_unknown_worker_error_is_retried_once() -> None:
    error = RuntimeError("secret path")
    answer = classify_error(error)
    assert isinstance(answer, RetryableFailure)
    assert answer.code == "worker_error"
    assert "secret path" not in answer.message
    assert isinstance(classify_error(error, **failed_at(0)), PermanentFailure)
    assert isinstance(classify_error(error, saved=6, **failed_at(0, 0)), RetryableFailure)
