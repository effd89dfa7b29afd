"""One attempt of a job: claimed → inputs → training → artifact or failure → ending.

A prediction run lives the same life; `work` says in what it differs.
"""

import dataclasses
import json
import socket
import time
from pathlib import Path
from threading import Event as Flag

import structlog

from app.database.errors import OUTAGE
from app.errors import AppError
from app.queue import leases
from app.queue.fencing import Claimed
from app.queue.states import Lane
from app.queue.transitions import Ending, Failed, Preempted, Retry, Waiting
from app.resources import Resources
from app.storage.data_folder import check_room
from app.sweeps import add_trials
from lora_core.errors import LoraCoreError
from lora_core.process import cores
from worker import finalize, inputs, workdir
from worker.checkpoint_sync import Keeper
from worker.devices import Slot
from worker.failures import Fenced, is_disk, judge, judge_error, over_time
from worker.host_health import HostCheck
from worker.inputs import Inputs
from worker.job_kinds import WORK
from worker.recorder import Recorder
from worker.spawn import Order, Warm
from worker.supervisor import Asked, Ended, Supervisor

LOG_TAIL = 4_000  # bytes
# A checkpoint that the training process refuses is as bad as one that is damaged.
UNUSABLE = frozenset({"checkpoint_corrupt", "checkpoint_mismatch"})

log = structlog.get_logger(__name__)


class JobRunner:
    """Runs claimed jobs, each in the thread that calls `run`."""

    def __init__(
        self, resources: Resources, *, draining: Flag, host: HostCheck | None = None
    ) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._draining = draining
        self._host = host or HostCheck(resources)

    def run(self, claimed: Claimed, slot: Slot, warm: Warm) -> None:
        """From the claim to the ending. What breaks on the way is an ending, too."""
        lease = claimed.lease
        attempt = _Attempt(claimed, slot, self._resources, warm)
        with structlog.contextvars.bound_contextvars(
            job_id=str(lease.job_id), attempt=lease.attempt
        ):
            log.info("the attempt starts", device=slot.device)
            try:
                self._run(attempt)
            except Fenced:
                log.warning("fenced: the job is in other hands")
            except Exception as error:
                known = isinstance(error, (AppError, LoraCoreError, *OUTAGE)) or is_disk(error)
                log.warning("the attempt broke", error=str(error), exc_info=not known)
                told = attempt.recorder
                ending = judge_error(
                    error, claimed, self._settings, saved_step=told.saved_step, step=told.step
                )
                if isinstance(ending, Waiting):
                    self._host.doubt_store()
                finalize.finish(self._resources, lease, ending)
            finally:
                workdir.clear(attempt.place.directory)
                self._advance(claimed)

    def _advance(self, claimed: Claimed) -> None:
        """Go on with the sweeps that waited for this job; what fails here a reconciler does."""
        try:
            add_trials.after(self._resources, claimed.lease.job_id)
        except OUTAGE as error:
            log.warning("a sweep waits for the database", error=str(error))
        except Exception:
            log.exception("a sweep could not go on")

    def _run(self, attempt: "_Attempt") -> None:
        lease, place = attempt.claimed.lease, attempt.place
        if self._draining.is_set():
            finalize.finish(self._resources, lease, Preempted())
            return
        if attempt.seconds_left() <= 0:
            ending = over_time(attempt.claimed, self._settings, saved_step=None)
            finalize.finish(self._resources, lease, ending)
            return
        check_room(self._settings, host=socket.gethostname())
        self._fix_runtime(attempt)
        self._check_store(attempt)
        with attempt.recorder.beating():
            found = inputs.locate(
                self._resources.database,
                attempt.claimed,
                settings=self._settings,
                store=self._resources.store,
            )
        attempt.recorder.public = found.public
        place.directory.mkdir(parents=True)
        place.spec.write_text(json.dumps(found.spec, allow_nan=False), encoding="utf-8")
        self._end(attempt, self._train(attempt), found)

    def _end(self, attempt: "_Attempt", ended: Ended, found: Inputs) -> None:
        claimed, place = attempt.claimed, attempt.place
        if ended.asked is Asked.FENCED:
            raise Fenced()
        if ended.left.code == 0:
            with attempt.recorder.beating():
                finalize.publish(self._resources, claimed, place.out, found)
        else:
            tell = log.warning if ended.asked is None else log.info
            tell("the training ended", **dataclasses.asdict(ended.left), log=_tail(place.log))
            if ended.asked is None:  # it may have died of one of these
                if ended.failed is None:
                    workdir.check_writable(self._settings)
                self._check_store(attempt)
            gone = ended.failed is not None and found.name_of_one(ended.failed.message)
            ending = judge(ended, claimed, self._settings, verified_input=gone)
            ending = _public(ending, found)
            finalize.finish(self._resources, claimed.lease, ending, ended.left)

    def _train(self, attempt: "_Attempt") -> Ended:
        """From the last checkpoint that serves, or from the beginning."""
        checkpoint = attempt.claimed.checkpoint
        while True:
            checkpoint, resume = attempt.keeper.fetch(checkpoint)
            attempt.recorder.begin(checkpoint)
            order = attempt.order(resume)
            child = attempt.warm.start(order)
            supervisor = Supervisor(
                child,
                attempt.recorder,
                settings=self._settings,
                draining=self._draining,
                keep=attempt.keeper.keep,
                seconds=attempt.seconds_left(),
            )
            ended = supervisor.run()
            if supervisor.stays:
                attempt.warm.keep(child, order)
            refused = ended.failed is not None and ended.failed.code in UNUSABLE
            if checkpoint is None or not refused or ended.failed is None:
                return ended
            self._check_store(attempt)  # the process reads the checkpoint where it is
            checkpoint = attempt.keeper.reject(checkpoint, ended.failed.message)

    def _check_store(self, attempt: "_Attempt") -> None:
        """Raises what a store raises that is away: inputs are read there, results kept there."""
        with attempt.recorder.beating():
            self._resources.store.now()

    def _fix_runtime(self, attempt: "_Attempt") -> None:
        """The first attempt fixes threads and device: others give other numbers."""
        claimed = attempt.claimed
        runtime = claimed.spec.get("runtime", {})
        fixed = {
            **runtime,
            "threads": runtime.get("threads") or max(1, cores() // self._settings.slots),
            "device": "cuda" if attempt.slot.lane is Lane.GPU else "cpu",
        }
        if fixed == runtime:
            return
        spec = {**claimed.spec, "runtime": fixed}
        with self._resources.database.write() as session:
            if not leases.fix_spec(session, claimed.lease, spec):
                raise Fenced()
            session.commit()
        attempt.claimed = dataclasses.replace(claimed, spec=spec)


class _Attempt:
    """What belongs to one attempt while it runs."""

    def __init__(self, claimed: Claimed, slot: Slot, resources: Resources, warm: Warm) -> None:
        self.claimed = claimed
        self.slot = slot
        self.warm = warm
        self._settings = resources.settings
        self.place = workdir.place(self._settings, claimed.lease.job_id, claimed.lease.attempt)
        self._began = time.monotonic()
        self.recorder = Recorder(
            resources.database,
            claimed.lease,
            beat_seconds=self._settings.beat_seconds,
            drop=resources.store.discard,
        )
        self.recorder.begin(claimed.checkpoint)
        self.keeper = Keeper(resources, claimed.lease, self.recorder, self.place.checkpoints)

    def seconds_left(self) -> float:
        """Of the longest time that the job may run."""
        limit = self.claimed.time_limit_seconds or self._settings.run_seconds
        if limit is None:
            return float("inf")
        return limit - self.claimed.running_seconds - (time.monotonic() - self._began)

    def order(self, resume: Path | None) -> Order:
        return Order(
            command=WORK[self.claimed.kind].command,
            place=self.place,
            resume=resume,
            checkpoint_seconds=self._settings.checkpoint_seconds,
            threads=self.claimed.spec["runtime"]["threads"],
            device=self.slot.device,
            lock_fd=self.slot.lock_fd,
            from_hub=inputs.from_hub(self.claimed.spec),
            stays=Warm.suits(self.claimed),
        )


def _public(ending: Ending, found: Inputs) -> Ending:
    if isinstance(ending, Failed):
        return Failed(ending.code, found.public(ending.message), found.public(ending.detail))
    if isinstance(ending, Waiting | Retry):
        return dataclasses.replace(ending, message=found.public(ending.message))
    return ending


def _tail(file: Path) -> str:
    """The end of what the process wrote, for our own log. All of it may be much."""
    try:
        with file.open("rb") as text:
            text.seek(max(0, file.stat().st_size - LOG_TAIL))
            return text.read(LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
