"""What a failure leads to."""

import errno
import signal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import OperationalError

from app.datasets.errors import DatasetNotFound
from app.queue.fencing import Claimed, Lease, StoredCheckpoint
from app.queue.states import Kind
from app.queue.transitions import Cancelled, Ending, ExitStatus, Failed, Preempted, Retry, Waiting
from app.settings import Settings
from app.storage.errors import StorageRefused
from app.storage.store import ArtifactRef
from lora_core import events
from worker import failures
from worker.failures import judge
from worker.supervisor import Asked, Ended

SETTINGS = Settings(max_failures=3, retry_seconds=10)
AWAY = OperationalError("SELECT 1", {}, Exception("gone"))
TOLD = events.Failed(code="one_class", message="Only one label.", detail={"label": "x"})


def claimed(**values: Any) -> Claimed:
    known: dict[str, Any] = {
        "lease": Lease(uuid4(), 1, "alice", 60),
        "kind": Kind.TRAINING,
        "spec": {},
        "dataset_ids": {},
        "register_as": None,
        "promote_to": None,
        "sweep_id": None,
        "failures": 0,
        "furthest": 0,
        "failed_at": frozenset(),
        "checkpoint": None,
        "time_limit_seconds": None,
        "running_seconds": 0.0,
        "waiting_code": None,
        "waited_seconds": None,
        **values,
    }
    return Claimed(**known)


def ending(
    *,
    code: int | None = None,
    number: int | None = None,
    asked: Asked | None = None,
    failed: events.Failed | None = None,
    saved: int | None = None,
    out_of_memory: bool = False,
    step: int = 0,
    **values: Any,
) -> Ending:
    ended = Ended(ExitStatus(code, number), asked, failed, saved, out_of_memory, step)
    return judge(ended, claimed(**values), SETTINGS)


def judge_error(
    error: Exception, *, saved: int | None = None, step: int = 0, **values: Any
) -> Ending:
    return failures.judge_error(error, claimed(**values), SETTINGS, saved_step=saved, step=step)


def stuck(*steps: int) -> dict[str, Any]:
    """What a job is like whose attempts failed at these steps."""
    return {"failures": len(steps), "furthest": max(steps), "failed_at": frozenset(steps)}


def test_a_reason_that_was_told_fails_at_once_with_its_code() -> None:
    assert ending(code=65, failed=TOLD) == Failed("one_class", "Only one label.", {"label": "x"})


@pytest.mark.parametrize("code", ["data_not_found", "base_not_found", "artifact_corrupt"])
def test_an_input_that_was_there_before_the_start_is_looked_for_again(code: str) -> None:
    """The store was away while the process read, and is back already."""
    told = events.Failed(code=code, message="No data 'x.csv': there is no such file.")
    ended = Ended(ExitStatus(65), None, told)
    answer = judge(ended, claimed(), SETTINGS, verified_input=True)
    assert answer == Retry(code, told.message, 10)
    assert isinstance(judge(ended, claimed(failures=2), SETTINGS, verified_input=True), Failed)
    assert isinstance(judge(ended, claimed(), SETTINGS), Failed)
    other = Ended(ExitStatus(65), None, TOLD)
    assert isinstance(judge(other, claimed(), SETTINGS, verified_input=True), Failed)


def test_the_reason_counts_even_while_the_worker_leaves() -> None:
    assert isinstance(ending(code=65, failed=TOLD, asked=Asked.DRAIN), Failed)


def test_a_code_without_a_reason_is_a_crash() -> None:
    assert ending(code=65) == Retry("crashed", "The process ended unexpectedly (exit code 65).", 10)


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


def test_two_failures_at_one_step_are_a_loop() -> None:
    answer = ending(number=signal.SIGSEGV, step=4, **stuck(4))
    assert isinstance(answer, Failed)
    assert answer.code == "crash_loop"
    assert "no further" in answer.message
    assert isinstance(ending(number=11, saved=6, step=6, **stuck(4)), Retry)
    stalled = ending(number=6, asked=Asked.STALL, step=3, **stuck(4))
    assert isinstance(stalled, Failed)
    assert stalled.code == "stalled"


def test_a_crash_at_another_step_is_no_loop_yet() -> None:
    assert isinstance(ending(number=11, step=3, **stuck(4)), Retry)
    assert isinstance(ending(number=11, step=5, **stuck(4, 2)), Retry)  # it got further
    last = ending(number=11, step=3, **stuck(4, 2))
    assert isinstance(last, Failed)
    assert last.code == "crashed"


@pytest.mark.parametrize(("step", "code"), [(0, "crashed"), (4, "crash_loop"), (3, "crashed")])
def test_a_training_that_somebody_kills_is_given_up_only_with_its_budget(
    step: int, code: str
) -> None:
    furthest = max(step, 4) if step else 0
    assert isinstance(ending(number=9, step=step, failures=1, furthest=furthest), Retry)
    last = ending(number=9, step=step, failures=2, furthest=furthest)
    assert isinstance(last, Failed)
    assert (last.code, "failure 3" in last.message) == (code, True)
    assert isinstance(ending(number=9, step=furthest + 1, failures=2, furthest=furthest), Retry)


def test_the_last_failure_that_is_allowed_ends_the_job() -> None:
    assert isinstance(ending(code=1, failures=1), Retry)
    assert isinstance(ending(code=1, failures=2, saved=9), Retry)  # progress forgives
    answer = ending(code=1, failures=2)
    assert isinstance(answer, Failed)
    assert answer.code == "crashed"
    assert "failure 3" in answer.message


def test_a_full_disk_is_waited_for_as_long_as_it_takes() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    answer = judge_error(error)
    assert isinstance(answer, Waiting)
    assert (answer.code, "disk" in answer.message) == ("storage_unavailable", True)
    assert 8 <= answer.seconds <= 12
    for waited in (200, 3700, 7 * 86_400):
        later = judge_error(error, waited_seconds=waited, waiting_code="storage_unavailable")
        assert isinstance(later, Waiting)
        assert 40 <= later.seconds <= 72


@pytest.mark.parametrize("error", [AWAY, StorageRefused(reason="403"), OSError(errno.EIO, "No")])
def test_what_the_installation_needs_is_waited_for_as_long_as_it_takes(error: Exception) -> None:
    answer = judge_error(error, waited_seconds=7 * 86_400, waiting_code="storage_unavailable")
    assert isinstance(answer, Waiting)


def test_the_hub_is_waited_for_but_not_for_ever() -> None:
    told = events.Failed(code="hub_unavailable", message="No answer.")
    for waited, code in ((3500, "hub_unavailable"), (3700, "storage_unavailable")):
        answer = ending(code=65, failed=told, waited_seconds=waited, waiting_code=code)
        assert isinstance(answer, Waiting)
        assert answer.code == "hub_unavailable"
    last = ending(code=65, failed=told, waited_seconds=3700, waiting_code="hub_unavailable")
    assert isinstance(last, Failed)
    assert (last.code, "3600 s" in last.message) == ("hub_unavailable", True)


@pytest.mark.parametrize("code", ["disk_full", "hub_unavailable"])
def test_a_training_without_disk_or_hub_waits(code: str) -> None:
    told = events.Failed(code=code, message="Not now.")
    assert isinstance(ending(code=65, failed=told, **stuck(0, 0)), Waiting)


def test_a_store_that_refuses_is_waited_for() -> None:
    answer = judge_error(StorageRefused(reason="403 Forbidden"), **stuck(0, 0))
    assert isinstance(answer, Waiting)
    assert "403 Forbidden" in answer.message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_disk_that_cannot_be_used_is_waited_for(number: int) -> None:
    error = OSError(number, "No", "/secret/path")
    answer = judge_error(error, **stuck(0, 0))
    assert isinstance(answer, Waiting)
    assert "LORAWORKS_DATA_DIR" in answer.message
    assert "/secret" not in answer.message


def test_a_database_that_is_away_is_waited_for() -> None:
    assert isinstance(judge_error(AWAY), Waiting)


def test_a_new_checkpoint_ends_what_was_waited_before() -> None:
    told = events.Failed(code="hub_unavailable", message="Not now.")
    waited: dict[str, Any] = {"waited_seconds": 3700, "waiting_code": "hub_unavailable"}
    for saved, kind in ((None, Failed), (9, Waiting)):
        assert isinstance(ending(code=65, failed=told, saved=saved, **waited), kind)


def test_memory_that_ran_out_is_tried_once_more() -> None:
    told = events.Failed(code="oom_host", message="No memory.")
    for known in ({"code": 65, "failed": told}, {"number": 9, "out_of_memory": True}):
        first = ending(**known)
        assert isinstance(first, Retry)
        assert (first.code, "micro_batch_tokens" in first.message) == ("oom_host", True)
        again = ending(**known, **stuck(0))
        assert isinstance(again, Failed)
        assert again.code == "oom_host"


def test_a_job_that_had_its_time_fails_and_says_where_it_was_saved() -> None:
    answer = ending(code=75, asked=Asked.TIME_LIMIT, time_limit_seconds=60, saved=7)
    assert isinstance(answer, Failed)
    assert (answer.code, answer.detail) == ("time_limit", {"checkpoint_step": 7})
    assert "60 s" in answer.message
    known = StoredCheckpoint(uuid4(), 1, 4, ArtifactRef("k", "0" * 64, 1))
    answer = ending(code=75, asked=Asked.TIME_LIMIT, time_limit_seconds=60, checkpoint=known)
    assert isinstance(answer, Failed)
    assert answer.detail == {"checkpoint_step": 4}


def test_a_known_cause_in_the_worker_keeps_its_code_and_detail() -> None:
    dataset_id = uuid4()
    answer = judge_error(DatasetNotFound(ref=dataset_id))
    assert answer == Failed(
        "dataset_not_found", f"There is no data set {dataset_id}.", {"ref": str(dataset_id)}
    )


def test_an_unknown_error_in_the_worker_is_tried_again_once() -> None:
    error = RuntimeError("secret path")
    answer = judge_error(error)
    assert isinstance(answer, Retry)
    assert answer.code == "worker_error"
    assert "secret path" not in answer.message
    assert isinstance(judge_error(error, **stuck(0)), Failed)
    assert isinstance(judge_error(error, saved=6, **stuck(0, 0)), Retry)
