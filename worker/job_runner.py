"""Runs one attempt of a claimed job: inputs → child process → artifact or failure → result.

All kinds of jobs take the same path; `inputs.JOB_KINDS` lists where they differ.
"""

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE_ERRORS
from app.errors import AppError
from app.queue import leases
from app.queue.enums import DeviceClass
from app.queue.fencing import ClaimedJob, LeaseLost
from app.queue.transitions import (
    AttemptResult,
    InfrastructureUnavailable,
    PermanentFailure,
    Preempted,
    RetryableFailure,
)
from app.resources import Resources
from app.storage.data_dir import check_free_space
from app.sweeps import scheduler
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.process_settings import available_cores
from worker import finalize, inputs, workdir
from worker.checkpoint_sync import CheckpointSync
from worker.child_process_supervisor import ChildProcessSupervisor, ChildResult, StopReason
from worker.devices import Slot
from worker.failures import (
    LEASE_LOST_MESSAGE,
    attempt_result_from_child,
    attempt_result_from_error,
    is_disk_error,
    time_limit_failure,
)
from worker.host_health import HostHealthChecker
from worker.inputs import JOB_KINDS, LocalInputs
from worker.recorder import Recorder
from worker.spawn import ChildProcess, ChildTask, spawn_child

LOG_TAIL_BYTES = 4_000
# A checkpoint that the process rejects is treated like a damaged one.
UNUSABLE_CHECKPOINT_CODES = frozenset({"checkpoint_corrupt", "checkpoint_mismatch"})

log = structlog.get_logger(__name__)


class JobRunner:
    """Runs claimed jobs, each in the thread that calls `run`."""

    def __init__(
        self,
        resources: Resources,
        *,
        draining: Flag,
        host_health: HostHealthChecker,
        spawn: Callable[[ChildTask], ChildProcess] = spawn_child,
    ) -> None:
        self._resources = resources
        self._spawn = spawn
        self._settings = resources.settings
        self._draining = draining
        self._host_health = host_health

    def run(self, claimed: ClaimedJob, slot: Slot) -> None:
        """Run the attempt and record its outcome. An error in the worker is an outcome, too."""
        lease = claimed.lease
        attempt = _AttemptContext(claimed, slot, self._resources)
        with structlog.contextvars.bound_contextvars(
            job_id=str(lease.job_id), attempt=lease.attempt
        ):
            log.info("attempt started", device=slot.device)
            try:
                self._run_attempt(attempt)
            except LeaseLost:
                log.warning(LEASE_LOST_MESSAGE)
            except Exception as error:
                expected = isinstance(
                    error, (AppError, LoraCoreError, *OUTAGE_ERRORS)
                ) or is_disk_error(error)
                log.warning("the attempt failed", error=str(error), exc_info=not expected)
                recorder = attempt.recorder
                outcome = attempt_result_from_error(
                    error,
                    claimed,
                    self._settings,
                    saved_step=recorder.saved_step,
                    step=recorder.step,
                )
                if isinstance(outcome, InfrastructureUnavailable):
                    self._host_health.request_store_check()
                finalize.finish_attempt_without_artifact(self._resources, lease, outcome)
            finally:
                attempt.attempt_dir.remove()
                self._advance_sweeps(claimed)

    def _advance_sweeps(self, claimed: ClaimedJob) -> None:
        """Advance the sweeps that may wait for this job. On failure a reconciler retries it."""
        try:
            scheduler.advance_sweeps_after_job(self._resources, claimed.lease.job_id)
        except OUTAGE_ERRORS as error:
            log.warning("cannot advance sweeps: the database is unreachable", error=str(error))
        except Exception:
            log.exception("failed to advance sweeps")

    def _run_attempt(self, attempt: "_AttemptContext") -> None:
        lease, attempt_dir = attempt.claimed.lease, attempt.attempt_dir
        if self._draining.is_set():
            finalize.finish_attempt_without_artifact(self._resources, lease, Preempted())
            return
        if attempt.seconds_left() <= 0:
            outcome = time_limit_failure(attempt.claimed, self._settings, saved_step=None)
            finalize.finish_attempt_without_artifact(self._resources, lease, outcome)
            return
        check_free_space(self._settings, host=socket.gethostname())
        self._pin_runtime(attempt)
        attempt_dir.path.mkdir(parents=True)
        with attempt.recorder.renewing_lease():
            # cached: in object storage, each check is a paid request
            self._resources.store.check_health()
            local_inputs = inputs.resolve_inputs(
                self._resources.database,
                attempt.claimed,
                settings=self._settings,
                store=self._resources.store,
                model_dir=attempt_dir.model,
            )
        attempt.recorder.to_public = local_inputs.replace_local_paths
        attempt_dir.spec.write_text(
            json.dumps(local_inputs.spec, allow_nan=False), encoding="utf-8"
        )
        result = self._run_child(attempt, local_inputs.files)
        self._finish_attempt(attempt, result, local_inputs)

    def _finish_attempt(
        self, attempt: "_AttemptContext", result: ChildResult, local_inputs: LocalInputs
    ) -> None:
        claimed, attempt_dir = attempt.claimed, attempt.attempt_dir
        if result.stop_reason is StopReason.LEASE_LOST:
            raise LeaseLost
        if result.exit_status.code == 0:
            with attempt.recorder.renewing_lease():
                finalize.publish_artifact_and_finish_attempt(
                    self._resources, claimed, _take_output(attempt_dir), local_inputs
                )
        else:
            log_event = log.warning if result.stop_reason is None else log.info
            log_event(
                "the process exited",
                **dataclasses.asdict(result.exit_status),
                log=_read_tail(attempt_dir.log),
            )
            if result.stop_reason is None:  # an unusable disk or store may be the cause
                if result.failure is None:
                    workdir.check_writable(self._settings)
                self._check_store(attempt)
            mentions_input = result.failure is not None and local_inputs.mentions_input(
                result.failure.message
            )
            outcome = attempt_result_from_child(
                result, claimed, self._settings, mentions_input=mentions_input
            )
            outcome = _replace_local_paths(outcome, local_inputs)
            finalize.finish_attempt_without_artifact(
                self._resources, claimed.lease, outcome, result.exit_status
            )

    def _run_child(self, attempt: "_AttemptContext", input_files: Sequence[Path]) -> ChildResult:
        """Run the child process from the last usable checkpoint, or from the start."""
        checkpoint = attempt.claimed.checkpoint
        while True:
            checkpoint, resume_from = attempt.checkpoint_sync.fetch(checkpoint)
            attempt.claimed = dataclasses.replace(attempt.claimed, checkpoint=checkpoint)
            attempt.recorder.set_start_step(checkpoint)
            with attempt.recorder.renewing_lease():  # it may wait for the fork server
                child = self._spawn(attempt.child_task(resume_from, input_files))
            supervisor = ChildProcessSupervisor(
                child,
                attempt.recorder,
                settings=self._settings,
                draining=self._draining,
                store_checkpoint=attempt.checkpoint_sync.store,
                time_limit_seconds=attempt.seconds_left(),
            )
            result = supervisor.run()
            failure = result.failure
            if (
                checkpoint is None
                or failure is None
                or failure.code not in UNUSABLE_CHECKPOINT_CODES
            ):
                return result
            self._check_store(attempt)  # the process reads the checkpoint from the store
            problem = failure.detail.get("problem") or failure.detail.get("what") or failure.code
            checkpoint = attempt.checkpoint_sync.reject_and_rewind(checkpoint, str(problem))
            if result.stop_reason is not None:  # which decides about the job, not the checkpoint
                attempt.claimed = dataclasses.replace(attempt.claimed, checkpoint=checkpoint)
                return dataclasses.replace(result, failure=None)

    def _check_store(self, attempt: "_AttemptContext") -> None:
        """Raise the store's error if it is unreachable now, and so may have caused a failure."""
        with attempt.recorder.renewing_lease():
            self._resources.store.read_clock()

    def _pin_runtime(self, attempt: "_AttemptContext") -> None:
        """Pin the threads at the first attempt: with others, the metrics would differ.

        The claim has pinned the class of the device. The stored spec keeps the requested one.
        """
        claimed = attempt.claimed
        runtime = dict(claimed.spec.get("runtime", {}))
        if not runtime.get("threads"):
            runtime["threads"] = max(1, available_cores() // self._settings.concurrency)
            spec = {**claimed.spec, "runtime": runtime}
            with self._resources.database.write() as session:
                leases.store_resolved_spec(session, claimed.lease, spec)
        device = "cuda" if attempt.slot.device_class is DeviceClass.GPU else "cpu"
        spec = {**claimed.spec, "runtime": {**runtime, "device": device}}
        attempt.claimed = dataclasses.replace(claimed, spec=spec)


class _AttemptContext:
    """The state of one attempt while it runs."""

    def __init__(self, claimed: ClaimedJob, slot: Slot, resources: Resources) -> None:
        self.claimed = claimed
        self.slot = slot
        self._settings = resources.settings
        self.attempt_dir = workdir.attempt_dir(
            self._settings, claimed.lease.job_id, claimed.lease.attempt
        )
        self._started_at = time.monotonic()
        self.recorder = Recorder(
            resources.database,
            claimed.lease,
            heartbeat_seconds=self._settings.heartbeat_seconds,
            delete_artifact=resources.store.delete_best_effort,
        )
        self.recorder.set_start_step(claimed.checkpoint)
        self.checkpoint_sync = CheckpointSync(
            resources, claimed.lease, self.recorder, self.attempt_dir
        )

    def seconds_left(self) -> float:
        """Return how much of the job's time limit is left, over all of its attempts."""
        limit = self.claimed.time_limit_seconds or self._settings.time_limit_seconds
        if limit is None:
            return float("inf")
        return limit - self.claimed.running_seconds - (time.monotonic() - self._started_at)

    def child_task(self, resume_from: Path | None, input_files: Sequence[Path]) -> ChildTask:
        return ChildTask(
            command=JOB_KINDS[self.claimed.kind].command,
            attempt_dir=self.attempt_dir,
            resume_from=resume_from,
            checkpoint_seconds=self._settings.checkpoint_seconds,
            threads=self.claimed.spec["runtime"]["threads"],
            device=self.slot.device,
            lock_fd=self.slot.lock_fd,
            from_hub=inputs.needs_hub(self.claimed.spec),
            inputs=input_files,
        )


def _take_output(attempt_dir: workdir.AttemptDir) -> Path:
    """Return the artifact that the process has written. Raises `ArtifactCorrupt`."""
    try:
        return attempt_dir.move_out_of_workspace(attempt_dir.out.name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactCorrupt(path=attempt_dir.out.name, problem="it is missing") from error


def _replace_local_paths(outcome: AttemptResult, local_inputs: LocalInputs) -> AttemptResult:
    if isinstance(outcome, PermanentFailure):
        return PermanentFailure(
            outcome.code,
            local_inputs.replace_local_paths(outcome.message),
            local_inputs.replace_local_paths(outcome.detail),
        )
    if isinstance(outcome, InfrastructureUnavailable | RetryableFailure):
        return dataclasses.replace(
            outcome, message=local_inputs.replace_local_paths(outcome.message)
        )
    return outcome


def _read_tail(path: Path) -> str:
    """Return the end of the process's log, for our own log. The whole may be large."""
    try:
        with path.open("rb") as log_file:
            log_file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return log_file.read(LOG_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
