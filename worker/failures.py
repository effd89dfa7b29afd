"""Why an attempt failed, and whether its job is retried, waits, or fails."""

import errno
import json
import random
import signal
from dataclasses import dataclass, replace

from app.database.errors import OUTAGE_ERRORS
from app.errors import AppError, Conflict, DataDirectoryUnusable
from app.queue.fencing import ClaimedJob
from app.queue.transitions import (
    CRASH_LOOP,
    FAILURES_EXHAUSTED,
    STORAGE_UNAVAILABLE,
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
from lora_core import child_protocol, events
from lora_core.atomic_files import is_disk_full
from lora_core.errors import LoraCoreError
from lora_core.errors.training import DiskFull
from worker.child_process_supervisor import ChildResult, StopReason

LEASE_LOST_MESSAGE = "lost the lease: the attempt has ended without this worker"


class InputChanged(Conflict):
    code = "input_changed"
    title = "A stored input has changed since the job was submitted."
    message = (
        "The stored file of {name} is missing or has changed. Delete this version, then upload the "
        "file again."
    )


class CeleryOptionInvalid(AppError):
    status = 500
    code = "celery_option_invalid"
    title = "An option of `celery worker` cannot be used here."
    message = "{option} cannot be used: {reason}"


class GpuDriverFailed(AppError):
    status = 500
    code = "gpu_driver_failed"
    title = "The GPUs of this machine cannot be listed."
    message = (
        "`nvidia-smi` cannot list the GPUs: {reason}. "
        "Repair the driver, or set LORAWORKS_DEVICES=cpu to train on the CPU."
    )


class GpuInstanceUnsupported(AppError):
    status = 500
    code = "gpu_instance_unsupported"
    title = "CUDA_VISIBLE_DEVICES names an instance of a GPU (MIG)."
    message = (
        "CUDA_VISIBLE_DEVICES names {name}, an instance of a GPU. Name whole GPUs, "
        "or set LORAWORKS_DEVICES=cpu to train on the CPU."
    )


class GpuMissing(AppError):
    status = 500
    code = "gpu_missing"
    title = "LORAWORKS_DEVICES names a device that is not available."
    message = (
        "LORAWORKS_DEVICES names {name}, which is not available to this worker. "
        "Available: {available}. `nvidia-smi` lists the GPUs; CUDA_VISIBLE_DEVICES may hide some."
    )


@dataclass(frozen=True)
class FailureCause:
    """A failure that may be transient. It is counted and retried, but not forever."""

    code: str
    message: str  # {description} is replaced with what was observed
    repeated_code: str  # the code once the failure is known to repeat
    per_step: bool = False  # only a second failure at the same step counts as a repetition
    external: bool = False  # caused from outside, so a second failure is no repetition


CRASHED = FailureCause(
    "crashed", "The process ended unexpectedly ({description}).", CRASH_LOOP, per_step=True
)
KILLED = replace(CRASHED, external=True)
STALLED = FailureCause("stalled", "The process reported nothing for {description}.", "stalled")
OOM_HOST = FailureCause(
    "oom_host",
    "The process was killed because the machine ran out of memory. Run fewer jobs at a time; for a "
    "training, lower `optim.micro_batch_tokens` or `data.max_length`.",
    "oom_host",
)
LOST_WORKER = FailureCause(
    "lost_worker", "The worker that ran this job is gone.", CRASH_LOOP, external=True
)
WORKER_ERROR = FailureCause(
    "worker_error", "The worker itself failed ({description}).", "worker_error"
)

_NO_PROGRESS = "{message} No progress since the previous attempt, so the job is not retried."
TIME_LIMIT_MESSAGE = "The job was stopped: it reached its time limit of {seconds:,.10g} s."
_HUB_TIMEOUT_EXCEEDED = (
    "{message} This lasted over {seconds:,.10g} s (LORAWORKS_HUB_TIMEOUT_SECONDS)."
)

# Failures of disk, storage, and hub that may go away. An operator repairs permissions and
# credentials; until then they must not fail every job that needs them.
HUB_UNAVAILABLE = "hub_unavailable"
TRANSIENT_CODES = frozenset(
    {
        "data_folder_unusable",
        "disk_full",
        HUB_UNAVAILABLE,
        "insufficient_disk_space",
        "storage_refused",
        "storage_unavailable",
    }
)
MISSING_INPUT_CODES = frozenset(
    {"data_not_found", "base_not_found", "unreadable_base", "artifact_corrupt"}
)
_DISK_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO}
MAX_WAIT_SECONDS = 60.0  # between two attempts


def attempt_result_from_child(
    result: ChildResult, claimed: ClaimedJob, settings: Settings, *, mentions_input: bool = False
) -> AttemptResult:
    """Return the result of an attempt that produced no artifact.

    Args:
        mentions_input: the reported failure is about an input, which was verified before the start.

    | observed                           | counted | result                                     |
    |------------------------------------|---------|--------------------------------------------|
    | exit 65 after a `failed` event     | no      | failed at once, with its code              |
    | the same, but a verified input is  | yes     | requeued with backoff: the store was       |
    | missing                            |         | unreachable                                |
    | the same about disk or storage     | no      | waits for them and shows the reason        |
    | the same about the hub             | no      | the same, up to `hub_timeout_seconds`      |
    | the same about the host's memory;  | yes     | requeued once                              |
    | killed by the kernel for it        |         |                                            |
    | stopped by a cancel                | no      | cancelled                                  |
    | stopped by a pause                 | no      | requeued as paused                         |
    | stopped at its time limit          | no      | failed; its checkpoint is kept             |
    | stopped by a drain; exit 75        | no      | requeued                                   |
    | stalled                            | yes     | requeued once                              |
    | SIGKILL from outside               | yes     | requeued with backoff                      |
    | any other exit or signal           | yes     | requeued with backoff; `crash_loop` at the |
    |                                    |         | second one at the same step                |

    Progress resets the count: an attempt that saved a checkpoint, or got further than any before
    it. Without progress, a counted failure is allowed `max_failures` times at most.
    """
    claimed = _reset_after_progress(claimed, result.saved_step, result.step)
    if result.exit_status.code == child_protocol.EXIT_FAILED and result.failure is not None:
        if mentions_input and result.failure.code in MISSING_INPUT_CODES:
            vanished = FailureCause(
                result.failure.code, "{description}", result.failure.code, external=True
            )
            return _retry_or_fail(vanished, result.failure.message, claimed, settings)
        return _classify_reported_failure(result.failure, claimed, settings)
    if result.stop_reason is StopReason.CANCEL:
        return Cancelled()
    if result.stop_reason is StopReason.PAUSE:
        return Paused()
    if result.stop_reason is StopReason.TIME_LIMIT:
        return time_limit_failure(claimed, settings, saved_step=result.saved_step)
    if (
        result.stop_reason is StopReason.DRAIN
        or result.exit_status.code == child_protocol.EXIT_STOPPED
    ):
        return Preempted()
    if result.stop_reason is StopReason.STALL:
        return _retry_or_fail(STALLED, f"{settings.stall_seconds:g} s", claimed, settings)
    return _retry_or_fail(
        _exit_cause(result),
        _exit_description(result.exit_status),
        claimed,
        settings,
        step=result.step,
    )


def _exit_cause(result: ChildResult) -> FailureCause:
    if result.exit_status.signal != signal.SIGKILL:  # no process sends it to itself
        return CRASHED
    return OOM_HOST if result.oom_killed else KILLED


def attempt_result_from_error(
    error: Exception, claimed: ClaimedJob, settings: Settings, *, saved_step: int | None, step: int
) -> AttemptResult:
    """Return the result of an attempt that failed in the worker itself, after `step`."""
    claimed = _reset_after_progress(claimed, saved_step, step)
    if is_disk_full(error):
        error = DiskFull(what="the files of the job")
    elif isinstance(error, OSError) and is_disk_error(error):
        error = DataDirectoryUnusable(reason=error.strerror)
    if isinstance(error, OUTAGE_ERRORS):
        return _wait("The database did not answer.", claimed, settings)
    if isinstance(error, AppError | LoraCoreError):
        if error.code in TRANSIENT_CODES:
            return _wait_or_give_up(error.code, str(error), claimed, settings)
        detail = json.loads(json.dumps(error.detail, default=str))
        return PermanentFailure(error.code, str(error), detail)
    return _retry_or_fail(WORKER_ERROR, type(error).__name__, claimed, settings)


def is_disk_error(error: Exception) -> bool:
    """Return whether the disk is the cause: full, broken, or not writable."""
    return is_disk_full(error) or (isinstance(error, OSError) and error.errno in _DISK_ERRNOS)


def _reset_after_progress(claimed: ClaimedJob, saved_step: int | None, step: int) -> ClaimedJob:
    """Reset the counts if the attempt made progress, as the database rows do."""
    if saved_step is not None:
        claimed = replace(claimed, waited_seconds=None)
    elif step <= claimed.furthest_step:
        return claimed
    return replace(claimed, failure_count=0, failed_steps=frozenset())


def _retry_or_fail(
    cause: FailureCause, description: str, claimed: ClaimedJob, settings: Settings, *, step: int = 0
) -> AttemptResult:
    """Retry, unless it would fail the same way or the allowed failures are used up."""
    message = cause.message.format(description=description)
    failures = claimed.failure_count + 1
    if _will_repeat(cause, claimed, step):
        return PermanentFailure(cause.repeated_code, _NO_PROGRESS.format(message=message))
    if failures >= settings.max_failures:
        code = cause.repeated_code if 0 < step == claimed.furthest_step else cause.code
        return PermanentFailure(code, FAILURES_EXHAUSTED.format(message, failures))
    return RetryableFailure(cause.code, message, settings.retry_seconds)


def _will_repeat(cause: FailureCause, claimed: ClaimedJob, step: int) -> bool:
    """Return whether another attempt is expected to fail the same way."""
    if cause.external:
        return False
    if cause is OOM_HOST:  # the rows do not tell an OOM kill from any other SIGKILL
        return claimed.failure_count > 0
    return step in claimed.failed_steps if cause.per_step else bool(claimed.failed_steps)


def _wait_or_give_up(
    code: str, message: str, claimed: ClaimedJob, settings: Settings
) -> AttemptResult:
    """Wait; for the hub only up to `hub_timeout_seconds`.

    The hub is not part of the installation, and a name that it never resolves may be wrong.
    """
    waited = claimed.waited_seconds if claimed.waiting_code == HUB_UNAVAILABLE else None
    if code == HUB_UNAVAILABLE and (waited or 0.0) > settings.hub_timeout_seconds:
        return PermanentFailure(
            HUB_UNAVAILABLE,
            _HUB_TIMEOUT_EXCEEDED.format(message=message, seconds=settings.hub_timeout_seconds),
        )
    return _wait(
        message,
        claimed,
        settings,
        code=HUB_UNAVAILABLE if code == HUB_UNAVAILABLE else STORAGE_UNAVAILABLE,
    )


def _wait(
    message: str, claimed: ClaimedJob, settings: Settings, *, code: str = STORAGE_UNAVAILABLE
) -> InfrastructureUnavailable:
    """Wait a quarter of the time waited so far, up to `MAX_WAIT_SECONDS`, without a limit."""
    waited = claimed.waited_seconds if claimed.waiting_code == code else None
    seconds = max(settings.retry_seconds, min(MAX_WAIT_SECONDS, (waited or 0.0) / 4))
    return InfrastructureUnavailable(code, message, seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter


def time_limit_failure(
    claimed: ClaimedJob, settings: Settings, *, saved_step: int | None
) -> PermanentFailure:
    """Return the failure of a job that reached its time limit."""
    last = claimed.checkpoint.step if saved_step is None and claimed.checkpoint else saved_step
    message = TIME_LIMIT_MESSAGE.format(
        seconds=claimed.time_limit_seconds or settings.time_limit_seconds
    )
    return PermanentFailure("time_limit", message, {"checkpoint_step": last})


def _classify_reported_failure(
    failed: events.Failed, claimed: ClaimedJob, settings: Settings
) -> AttemptResult:
    if failed.code in TRANSIENT_CODES:
        return _wait_or_give_up(failed.code, failed.message, claimed, settings)
    if failed.code == OOM_HOST.code:
        return _retry_or_fail(OOM_HOST, "", claimed, settings)
    stored = json.loads(failed.model_dump_json())  # JSON in PostgreSQL has no NaN
    return PermanentFailure(failed.code, failed.message, stored["detail"])


def worker_lost_failure(settings: Settings) -> RetryableFailure:
    """Return the failure of a job whose worker is gone."""
    return RetryableFailure(LOST_WORKER.code, LOST_WORKER.message, settings.retry_seconds)


def _exit_description(exit_status: ProcessExitStatus) -> str:
    if exit_status.signal is None:
        return f"exit code {exit_status.code}"
    hint = ", often a sign of running out of memory" if exit_status.signal == signal.SIGKILL else ""
    return f"signal {exit_status.signal}, {signal.strsignal(exit_status.signal)}{hint}"
