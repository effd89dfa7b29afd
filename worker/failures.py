"""Why an attempt failed, and what follows: one table."""

import json
import signal
from dataclasses import dataclass

from app.errors import AppError
from app.jobs.endings import Cancelled, Ending, ExitStatus, Failed, Preempted, Retry
from app.jobs.leases import Claimed
from app.settings import Settings
from lora_core import exit_codes
from lora_core.cache import is_no_room
from lora_core.errors import DiskFull, LoraCoreError
from worker.supervisor import Asked, Ended


@dataclass(frozen=True)
class Cause:
    """A failure that may pass. It is counted and tried again, but not for ever."""

    code: str
    message: str  # {how}: what was seen
    again: str  # the code once a second failure came no further than the first


CRASHED = Cause("crashed", "The training process ended unexpectedly ({how}).", "crash_loop")
STALLED = Cause("stalled", "The training gave no sign of life for {how}.", "stalled")
LOST = Cause("lost_worker", "The worker that ran the job is gone.", "lost_worker")
BROKEN = Cause("worker_error", "The worker failed while it ran the job ({how}).", "worker_error")

NO_FURTHER = "{message} It came no further than the time before, so it is not tried again."
SPENT = "{message} This was failure {failures}, and the last that is allowed."


def judge(ended: Ended, claimed: Claimed, settings: Settings) -> Ending:
    """The ending of an attempt that made no artifact.

    | seen                               | counted | ending                                     |
    |------------------------------------|---------|--------------------------------------------|
    | exit 65 after a `failed` event     | no      | failed at once, with its code              |
    | made to leave by a cancel          | no      | cancelled                                  |
    | made to leave by a drain; exit 75  | no      | queued again                               |
    | silent for too long                | yes     | queued again, later; `stalled` in the end  |
    | any other exit or signal           | yes     | queued again, later; `crash_loop` when two |
    |                                    |         | failures came no further than each other   |
    """
    if ended.left.code == exit_codes.FAILED and ended.failed is not None:
        return Failed(ended.failed.code, ended.failed.message, ended.failed.detail)
    if ended.asked is Asked.CANCEL:
        return Cancelled()
    if ended.asked is Asked.DRAIN or ended.left.code == exit_codes.STOPPED:
        return Preempted()
    if ended.asked is Asked.STALL:
        return count(STALLED, f"{settings.stall_seconds:g} s", ended.step, claimed, settings)
    return count(CRASHED, _how(ended.left), ended.step, claimed, settings)


def judge_error(error: Exception, claimed: Claimed, settings: Settings) -> Ending:
    """The ending of an attempt that failed in the worker itself."""
    if is_no_room(error):
        error = DiskFull(what="the files of the job")
    if isinstance(error, AppError | LoraCoreError):
        detail = json.loads(json.dumps(error.detail, default=str))
        return Failed(error.code, str(error), detail)
    return count(BROKEN, type(error).__name__, 0, claimed, settings)


def count(cause: Cause, how: str, step: int, claimed: Claimed, settings: Settings) -> Ending:
    """Try again, unless nothing was gained or the budget is spent."""
    message = cause.message.format(how=how)
    failures = claimed.failures + 1
    if claimed.furthest is not None and step <= claimed.furthest:
        return Failed(cause.again, NO_FURTHER.format(message=message))
    if failures >= settings.max_failures:
        return Failed(cause.code, SPENT.format(message=message, failures=failures))
    return Retry(cause.code, message, settings.retry_seconds)


def lost(settings: Settings) -> Retry:
    """What a job is told whose worker is gone."""
    return Retry(LOST.code, LOST.message, settings.retry_seconds)


def _how(left: ExitStatus) -> str:
    if left.signal is None:
        return f"exit code {left.code}"
    hint = ", often a sign that memory ran out" if left.signal == signal.SIGKILL else ""
    return f"signal {left.signal}, {signal.strsignal(left.signal)}{hint}"
