"""Why a worker cannot start a training."""

import errno
import json
import random
import signal
from dataclasses import dataclass, replace

from app.database.errors import OUTAGE
from app.errors import AppError, Conflict, DataFolderUnusable
from app.queue.fencing import Claimed
from app.queue.transitions import (
    CRASH_LOOP,
    SPENT,
    STORAGE,
    Cancelled,
    Ending,
    ExitStatus,
    Failed,
    Preempted,
    Retry,
    Waiting,
)
from app.settings import Settings
from lora_core import child_protocol, events
from lora_core.atomic_files import is_no_room
from lora_core.errors import LoraCoreError
from lora_core.errors.training import DiskFull
from worker.supervisor import Asked, Ended


class Fenced(Exception):
    """The job is in other hands; nothing may be written."""


class InputChanged(Conflict):
    """A stored input is not what it was when the job was sent."""

    code = "input_changed"
    message = "The stored file of {name} is missing or has changed. Upload it again."


class GpuDriverFails(AppError):
    """The GPUs of the machine cannot be listed."""

    status = 500
    code = "gpu_driver_fails"
    message = (
        "`nvidia-smi` cannot list the GPUs: {reason}. "
        "Mend the driver, or set LORAWORKS_DEVICES=cpu to train on the CPU."
    )


class GpuMissing(AppError):
    """A GPU of the settings is not there."""

    status = 500
    code = "gpu_missing"
    message = (
        "LORAWORKS_DEVICES names {name}, which this worker does not see. It sees: {there}. "
        "`nvidia-smi` lists the GPUs; CUDA_VISIBLE_DEVICES may hide some."
    )


# MERGED worker.failures
# Why an attempt failed, and what follows: one table.


@dataclass(frozen=True)
class Cause:
    """A failure that may pass. It is counted and tried again, but not for ever."""

    code: str
    message: str  # {how}: what was seen
    again: str  # the code once it is known to happen again and again
    by_step: bool = False  # a second one proves something only at the same step
    outside: bool = False  # somebody else's doing: a second one proves nothing


CRASHED = Cause("crashed", "The process ended unexpectedly ({how}).", CRASH_LOOP, by_step=True)
KILLED = replace(CRASHED, outside=True)
STALLED = Cause("stalled", "The process gave no sign of life for {how}.", "stalled")
OOM_HOST = Cause(
    "oom_host",
    "The process was ended because the memory of the machine ran out. Run fewer at a time; for a "
    "training, choose a smaller `optim.micro_batch_tokens` or `data.max_length`.",
    "oom_host",
)
LOST = Cause("lost_worker", "The worker that ran it is gone.", CRASH_LOOP, outside=True)
BROKEN = Cause("worker_error", "The worker itself failed ({how}).", "worker_error")

NO_FURTHER = "{message} It came no further than the time before, so it is not tried again."
OVER_TIME = "It has run for {seconds:g} s, the longest that is allowed, and was stopped."
IMPATIENT = "{message} That went on for over {seconds:g} s (LORAWORKS_PATIENCE_SECONDS)."

# What may be well again in a while, whoever is to blame: disk, storage, hub. Rights and credentials
# are mended by their operator, and must not end every job that needs them meanwhile.
HUB = "hub_unavailable"
PASSING = frozenset({"disk_full", "storage_full", "data_folder_unusable"}) | {
    *("storage_unavailable", "storage_refused", HUB),
}
NOT_THERE = frozenset({"data_not_found", "base_not_found", "broken_base", "artifact_corrupt"})
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO}
LONGEST_WAIT = 60.0  # seconds between two tries


def judge(
    ended: Ended, claimed: Claimed, settings: Settings, *, verified_input: bool = False
) -> Ending:
    """The ending of an attempt that made no artifact.

    `verified_input`: what the process told is about an input that was verified before it began.

    | seen                               | counted | ending                                     |
    |------------------------------------|---------|--------------------------------------------|
    | exit 65 after a `failed` event     | no      | failed at once, with its code              |
    | the same about an input that is    | yes     | queued again, later: the store was away    |
    | not there, but was before          |         |                                            |
    | made to leave by a cancel          | no      | cancelled                                  |
    | the same about disk, storage       | no      | waits for them, its reason shown           |
    | the same about the hub             | no      | the same, but not for ever                 |
    | the same about the host's memory;  | yes     | queued again once                          |
    | killed by the kernel for it        |         |                                            |
    | made to leave by its time limit    | no      | failed; its checkpoint stays               |
    | made to leave by a drain; exit 75  | no      | queued again                               |
    | silent for too long                | yes     | queued again once                          |
    | SIGKILL of somebody else           | yes     | queued again, later                        |
    | any other exit or signal           | yes     | queued again, later; `crash_loop` at the   |
    |                                    |         | second one at the same step                |

    Progress forgives: an attempt that saved a checkpoint, or got further than any before it,
    begins the count anew. Whatever counts is tried `max_failures` times at most without any.
    """
    claimed = _forgiven(claimed, ended.saved_step, ended.step)
    if ended.left.code == child_protocol.FAILED and ended.failed is not None:
        if verified_input and ended.failed.code in NOT_THERE:
            vanished = Cause(ended.failed.code, "{how}", ended.failed.code, outside=True)
            return _retry_or_fail(vanished, ended.failed.message, claimed, settings)
        return _known(ended.failed, claimed, settings)
    if ended.asked is Asked.CANCEL:
        return Cancelled()
    if ended.asked is Asked.TIME_LIMIT:
        return over_time(claimed, settings, saved_step=ended.saved_step)
    if ended.asked is Asked.DRAIN or ended.left.code == child_protocol.STOPPED:
        return Preempted()
    if ended.asked is Asked.STALL:
        return _retry_or_fail(STALLED, f"{settings.stall_seconds:g} s", claimed, settings)
    return _retry_or_fail(_cause(ended), _how(ended.left), claimed, settings, step=ended.step)


def _cause(ended: Ended) -> Cause:
    if ended.left.signal != signal.SIGKILL:  # which no process sends itself
        return CRASHED
    return OOM_HOST if ended.out_of_memory else KILLED


def judge_error(
    error: Exception, claimed: Claimed, settings: Settings, *, saved_step: int | None, step: int
) -> Ending:
    """The ending of an attempt that failed in the worker itself, after `step`."""
    claimed = _forgiven(claimed, saved_step, step)
    if is_no_room(error):
        error = DiskFull(what="the files of the job")
    elif isinstance(error, OSError) and is_disk(error):
        error = DataFolderUnusable(reason=error.strerror)
    if isinstance(error, OUTAGE):
        return _wait("The database did not answer.", claimed, settings)
    if isinstance(error, AppError | LoraCoreError):
        if error.code in PASSING:
            return _wait_for(error.code, str(error), claimed, settings)
        detail = json.loads(json.dumps(error.detail, default=str))
        return Failed(error.code, str(error), detail)
    return _retry_or_fail(BROKEN, type(error).__name__, claimed, settings)


def is_disk(error: Exception) -> bool:
    """Whether the disk is to blame: full, broken, or not ours to write."""
    return is_no_room(error) or (isinstance(error, OSError) and error.errno in _UNUSABLE)


def _forgiven(claimed: Claimed, saved_step: int | None, step: int) -> Claimed:
    """Progress ends what was counted before it, here as in the rows."""
    if saved_step is not None:
        claimed = replace(claimed, waited_seconds=None)
    elif step <= claimed.furthest:
        return claimed
    return replace(claimed, failures=0, failed_at=frozenset())


def _retry_or_fail(
    cause: Cause, how: str, claimed: Claimed, settings: Settings, *, step: int = 0
) -> Ending:
    """Try again, unless it would fail the same way or the budget is spent."""
    message = cause.message.format(how=how)
    failures = claimed.failures + 1
    if _repeats(cause, claimed, step):
        return Failed(cause.again, NO_FURTHER.format(message=message))
    if failures >= settings.max_failures:
        code = cause.again if 0 < step == claimed.furthest else cause.code
        return Failed(code, SPENT.format(message, failures))
    return Retry(cause.code, message, settings.retry_seconds)


def _repeats(cause: Cause, claimed: Claimed, step: int) -> bool:
    """Whether it would fail the same way a third time."""
    if cause.outside:
        return False
    if cause is OOM_HOST:  # the kernel's kill looks like that of anybody else, in the rows
        return claimed.failures > 0
    return step in claimed.failed_at if cause.by_step else bool(claimed.failed_at)


def _wait_for(code: str, message: str, claimed: Claimed, settings: Settings) -> Ending:
    """The hub is no part of the installation, and a name that it never answers to may be wrong."""
    waited = claimed.waited_seconds if claimed.waiting_code == HUB else None
    if code == HUB and (waited or 0.0) > settings.patience_seconds:
        return Failed(HUB, IMPATIENT.format(message=message, seconds=settings.patience_seconds))
    return _wait(message, claimed, settings, code=HUB if code == HUB else STORAGE)


def _wait(message: str, claimed: Claimed, settings: Settings, *, code: str = STORAGE) -> Waiting:
    """Try again in a while, at first soon, however long it takes."""
    waited = claimed.waited_seconds if claimed.waiting_code == code else None
    seconds = max(settings.retry_seconds, min(LONGEST_WAIT, (waited or 0.0) / 4))
    return Waiting(code, message, seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter


def over_time(claimed: Claimed, settings: Settings, *, saved_step: int | None) -> Failed:
    """The job has had its time."""
    last = claimed.checkpoint.step if saved_step is None and claimed.checkpoint else saved_step
    message = OVER_TIME.format(seconds=claimed.time_limit_seconds or settings.run_seconds)
    return Failed("time_limit", message, {"checkpoint_step": last})


def _known(failed: events.Failed, claimed: Claimed, settings: Settings) -> Ending:
    if failed.code in PASSING:
        return _wait_for(failed.code, failed.message, claimed, settings)
    if failed.code == OOM_HOST.code:
        return _retry_or_fail(OOM_HOST, "", claimed, settings)
    return Failed(failed.code, failed.message, failed.detail)


def lost(settings: Settings) -> Retry:
    """What a job is told whose worker is gone."""
    return Retry(LOST.code, LOST.message, settings.retry_seconds)


def _how(left: ExitStatus) -> str:
    if left.signal is None:
        return f"exit code {left.code}"
    hint = ", often a sign that memory ran out" if left.signal == signal.SIGKILL else ""
    return f"signal {left.signal}, {signal.strsignal(left.signal)}{hint}"
