"""Watches one training process until it has exited. Contains no SQL."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from signal import SIGABRT
from threading import Event as Flag

from app.queue.transitions import ProcessExitStatus
from app.settings import Settings
from lora_core.events import CheckpointSaved, Failed
from worker import host_health
from worker.recorder import Recorder, running_periodically_in_thread
from worker.spawn import ChildProcess

POLL_SECONDS = 0.2  # between two checks of the limits
ABORT_SECONDS = 5.0  # for a hanging process to write its stack traces


class StopReason(StrEnum):
    """Why the worker stopped the process."""

    CANCEL = "cancel"
    PAUSE = "pause"
    DRAIN = "drain"
    STALL = "stall"
    LEASE_LOST = "lease_lost"
    TIME_LIMIT = "time_limit"


@dataclass(frozen=True)
class ChildResult:
    """How the process exited, and what is known about the reason."""

    exit_status: ProcessExitStatus
    stop_reason: StopReason | None
    failure: Failed | None  # the last event of the process, if it was a failure
    saved_step: int | None = None  # of this attempt's last checkpoint that is recorded
    # While it ran, the kernel killed a process of the worker's cgroup because memory ran out. That
    # may have been another job, but the counter of the cgroup does not say which.
    oom_killed: bool = False
    step: int = 0  # the last one reported


class ChildProcessSupervisor:
    """Reads events, renews the lease, and stops the process when it must.

    Reasons to stop: a request to cancel or to pause, a drain, a stall, the time limit, or a lost
    lease.
    """

    def __init__(
        self,
        child: ChildProcess,
        recorder: Recorder,
        *,
        settings: Settings,
        draining: Flag,
        store_checkpoint: Callable[[CheckpointSaved], None],
        time_limit_seconds: float = float("inf"),
    ) -> None:
        """Watch `child`.

        Args:
            store_checkpoint: uploads a checkpoint that the process has saved.
            time_limit_seconds: how long the process may run.
        """
        self._child = child
        self._recorder = recorder
        self._settings = settings
        self._draining = draining
        self._store_checkpoint = store_checkpoint
        self._stop_at = time.monotonic() + time_limit_seconds
        self._stop_reason: StopReason | None = None
        self._failure: Failed | None = None
        self._last_event_at = time.monotonic()
        self._kill_at = float("inf")

    def run(self) -> ChildResult:
        """Block until the process and all its children are gone and its events are written."""
        kills_before = host_health.oom_kill_count()
        try:
            self._watch()
            exit_status = self._child.kill_and_wait()
            if self._stop_reason is not StopReason.LEASE_LOST:
                self._recorder.flush()
        except BaseException:
            self._child.kill_and_wait()  # do not leave it running unsupervised
            raise
        if self._stop_reason is StopReason.STALL:
            # Also if it took a SIGKILL: one from outside would not count as a repeated failure.
            exit_status = ProcessExitStatus(signal=SIGABRT)
        stop_reason = StopReason.LEASE_LOST if self._recorder.lease_lost else self._stop_reason
        oom_killed = host_health.oom_kill_count() > kills_before
        recorder = self._recorder
        return ChildResult(
            exit_status, stop_reason, self._failure, recorder.saved_step, oom_killed, recorder.step
        )

    def _watch(self) -> None:
        while (events := self._child.poll_events(POLL_SECONDS)) is not None:
            for event in events:
                self._last_event_at = time.monotonic()
                self._failure = event if isinstance(event, Failed) else None
                self._recorder.add_event(event)
                if (
                    isinstance(event, CheckpointSaved)
                    and self._stop_reason is not StopReason.LEASE_LOST
                ):
                    self._last_event_at = float("inf")  # not a stall: no events are read meanwhile
                    with running_periodically_in_thread(self._enforce_limits, seconds=POLL_SECONDS):
                        self._store_checkpoint(event)
                    self._last_event_at = time.monotonic()
            if self._stop_reason is not StopReason.LEASE_LOST and self._recorder.is_due():
                self._recorder.renew_lease_and_write()
            self._enforce_limits()

    def _enforce_limits(self) -> None:
        self._check_stop_reasons()
        if time.monotonic() >= self._kill_at:
            self._child.kill()

    def _check_stop_reasons(self) -> None:
        """Ask the process to stop, at most once. A lost lease overrides every other reason."""
        if self._recorder.lease_lost:
            self._set_stop_reason(StopReason.LEASE_LOST, within=0)
        elif self._stop_reason is not None:
            return
        elif self._recorder.cancel_requested:
            self._child.terminate()
            self._set_stop_reason(StopReason.CANCEL, within=self._settings.stop_grace_seconds)
        elif self._recorder.pause_requested:
            self._child.terminate()
            self._set_stop_reason(StopReason.PAUSE, within=self._settings.stop_grace_seconds)
        elif self._draining.is_set():
            self._child.terminate()
            self._set_stop_reason(StopReason.DRAIN, within=self._settings.stop_grace_seconds)
        elif time.monotonic() > self._stop_at:
            self._child.terminate()
            self._set_stop_reason(StopReason.TIME_LIMIT, within=self._settings.stop_grace_seconds)
        elif time.monotonic() - self._last_event_at > self._settings.stall_seconds:
            self._child.abort_with_traceback()
            self._set_stop_reason(StopReason.STALL, within=ABORT_SECONDS)

    def _set_stop_reason(self, stop_reason: StopReason, *, within: float) -> None:
        self._stop_reason = stop_reason
        self._kill_at = time.monotonic() + within
