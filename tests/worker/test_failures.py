"""What a failure leads to."""

import errno
import signal
from typing import Any
from uuid import uuid4

import pytest

from app.datasets.errors import DatasetNotFound
from app.jobs.endings import Cancelled, Ending, ExitStatus, Failed, Preempted, Retry
from app.jobs.leases import Claimed, Lease
from app.settings import Settings
from lora_core import events
from worker.failures import judge, judge_error
from worker.supervisor import Asked, Ended

SETTINGS = Settings(max_failures=3, retry_seconds=10)
TOLD = events.Failed(code="one_class", message="Only one label.", detail={"label": "x"})


def claimed(**values: Any) -> Claimed:
    known: dict[str, Any] = {"failures": 0, "furthest": None, **values}
    lease = Lease(uuid4(), 1, "alice", 60)
    return Claimed(lease=lease, spec={}, dataset_ids={}, register_as=None, **known)


def ending(
    *,
    code: int | None = None,
    number: int | None = None,
    asked: Asked | None = None,
    failed: events.Failed | None = None,
    step: int = 5,
    **values: Any,
) -> Ending:
    ended = Ended(ExitStatus(code, number), asked, failed, step)
    return judge(ended, claimed(**values), SETTINGS)


def test_a_reason_that_was_told_fails_at_once_with_its_code() -> None:
    assert ending(code=65, failed=TOLD) == Failed("one_class", "Only one label.", {"label": "x"})


def test_the_reason_counts_even_while_the_worker_leaves() -> None:
    assert isinstance(ending(code=65, failed=TOLD, asked=Asked.DRAIN), Failed)


def test_a_code_without_a_reason_is_a_crash() -> None:
    assert ending(code=65) == Retry(
        "crashed", "The training process ended unexpectedly (exit code 65).", 10
    )


@pytest.mark.parametrize(
    ("code", "number"), [(75, None), (1, None), (None, signal.SIGTERM), (None, signal.SIGKILL)]
)
def test_who_was_asked_to_leave_did_not_fail(code: int | None, number: int | None) -> None:
    assert ending(asked=Asked.CANCEL, code=code, number=number) == Cancelled()
    assert ending(asked=Asked.DRAIN, code=code, number=number) == Preempted()


def test_who_stopped_by_itself_waits_again() -> None:
    assert ending(code=75) == Preempted()


def test_a_signal_is_named() -> None:
    answer = ending(number=signal.SIGSEGV)
    assert isinstance(answer, Retry)
    assert "signal 11, Segmentation fault" in answer.message
    answer = ending(number=signal.SIGKILL)
    assert isinstance(answer, Retry)
    assert "memory" in answer.message


def test_silence_is_a_failure_that_may_pass() -> None:
    answer = ending(number=signal.SIGABRT, asked=Asked.STALL)
    assert isinstance(answer, Retry)
    assert answer.code == "stalled"
    assert "900 s" in answer.message


def test_two_failures_at_the_same_step_are_a_loop() -> None:
    answer = ending(number=signal.SIGSEGV, step=5, failures=1, furthest=5)
    assert isinstance(answer, Failed)
    assert answer.code == "crash_loop"
    assert "no further" in answer.message
    assert isinstance(ending(number=11, step=6, failures=1, furthest=5), Retry)
    stalled = ending(number=6, asked=Asked.STALL, step=5, failures=1, furthest=5)
    assert isinstance(stalled, Failed)
    assert stalled.code == "stalled"


def test_the_last_failure_that_is_allowed_ends_the_job() -> None:
    assert isinstance(ending(code=1, step=7, failures=1, furthest=5), Retry)
    answer = ending(code=1, step=9, failures=2, furthest=7)
    assert isinstance(answer, Failed)
    assert answer.code == "crashed"
    assert "failure 3" in answer.message


def test_a_full_disk_has_its_own_code() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    answer = judge_error(error, claimed(), SETTINGS)
    assert isinstance(answer, Failed)
    assert answer.code == "disk_full"


def test_a_known_cause_in_the_worker_keeps_its_code_and_detail() -> None:
    dataset_id = uuid4()
    answer = judge_error(DatasetNotFound(ref=dataset_id), claimed(), SETTINGS)
    assert answer == Failed(
        "dataset_not_found", f"There is no data set {dataset_id}.", {"ref": str(dataset_id)}
    )


def test_an_unknown_error_in_the_worker_is_tried_again_once() -> None:
    error = RuntimeError("secret path")
    answer = judge_error(error, claimed(), SETTINGS)
    assert isinstance(answer, Retry)
    assert answer.code == "worker_error"
    assert "secret path" not in answer.message
    answer = judge_error(error, claimed(failures=1, furthest=0), SETTINGS)
    assert isinstance(answer, Failed)
