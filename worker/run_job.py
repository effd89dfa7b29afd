"""One attempt of a job: claimed → inputs → training → artifact or failure → ending."""

import dataclasses
import json
import os
from pathlib import Path
from threading import Event as Flag

import structlog

from app.errors import AppError
from app.jobs import ownership
from app.jobs.endings import Ending, ExitStatus, Failed, Preempted
from app.jobs.leases import Claimed
from app.resources import Resources
from lora_core.errors import LoraCoreError
from worker import close, inputs, workplace
from worker.failures import judge, judge_error
from worker.inputs import Inputs
from worker.launch import LOG_FILE, Launcher
from worker.recorder import Recorder
from worker.supervisor import Asked, Ended, Supervisor

LOG_TAIL = 4_000  # bytes

log = structlog.get_logger(__name__)


class JobRunner:
    """Runs claimed jobs, each in the thread that calls `run`."""

    def __init__(self, resources: Resources, launcher: Launcher, *, draining: Flag) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._launcher = launcher
        self._draining = draining

    def run(self, claimed: Claimed) -> None:
        """From the claim to the ending. What breaks on the way is an ending, too."""
        lease = claimed.lease
        place = workplace.place(self._settings, lease.job_id, lease.attempt)
        with structlog.contextvars.bound_contextvars(
            job_id=str(lease.job_id), attempt=lease.attempt
        ):
            log.info("the attempt starts")
            try:
                self._run(claimed, place.directory)
            except Exception as error:
                known = isinstance(error, AppError | LoraCoreError)
                log.warning("the attempt broke", error=str(error), exc_info=not known)
                self._finish(claimed, judge_error(error, claimed, self._settings))
            finally:
                workplace.clear(place.directory)

    def _run(self, claimed: Claimed, directory: Path) -> None:
        if self._draining.is_set():
            self._finish(claimed, Preempted())
            return
        workplace.check_room(self._settings)
        fixed = self._fix_threads(claimed)
        if fixed is None:
            return
        database, store = self._resources.database, self._resources.store
        recorder = Recorder(database, fixed.lease, beat_seconds=self._settings.beat_seconds)
        with recorder.beating():
            found = inputs.locate(database, fixed, settings=self._settings, store=store)
        recorder.public = found.public
        ended = self._train(fixed, directory, found, recorder)
        if ended.asked is Asked.FENCED:
            log.warning("fenced: the job is in other hands")
        elif ended.left.code == 0:
            with recorder.beating():
                published = close.publish(self._resources, fixed, directory / "out", found)
            if published:
                log.info("the attempt succeeded")
        else:
            tell = log.warning if ended.asked is None else log.info
            tell("the training ended", left=ended.left, log=_tail(directory / LOG_FILE))
            self._finish(fixed, _public(judge(ended, fixed, self._settings), found), ended.left)

    def _fix_threads(self, claimed: Claimed) -> Claimed | None:
        """The first attempt fixes the thread count, since another one gives other numbers."""
        runtime = claimed.spec.get("runtime", {})
        if runtime.get("threads") is not None:
            return claimed
        threads = max(1, len(os.sched_getaffinity(0)) // self._settings.slots)
        spec = {**claimed.spec, "runtime": {**runtime, "threads": threads}}
        with self._resources.database.write() as session:
            if not ownership.fix_spec(session, claimed.lease, spec):
                return None
            session.commit()
        return dataclasses.replace(claimed, spec=spec)

    def _train(self, claimed: Claimed, directory: Path, found: Inputs, recorder: Recorder) -> Ended:
        directory.mkdir(parents=True)
        spec = directory / "spec.json"
        spec.write_text(json.dumps(found.spec, allow_nan=False), encoding="utf-8")
        threads = claimed.spec["runtime"]["threads"]
        child = self._launcher.start(spec, directory / "out", threads=threads)
        return Supervisor(child, recorder, settings=self._settings, draining=self._draining).run()

    def _finish(self, claimed: Claimed, ending: Ending, left: ExitStatus | None = None) -> None:
        if close.finish(self._resources, claimed.lease, ending, left):
            log.info("the attempt ended", ending=type(ending).__name__)


def _public(ending: Ending, found: Inputs) -> Ending:
    if isinstance(ending, Failed):
        return Failed(ending.code, found.public(ending.message), found.public(ending.detail))
    return ending


def _tail(file: Path) -> str:
    """The end of what the process wrote, for our own log."""
    try:
        return file.read_bytes()[-LOG_TAIL:].decode("utf-8", "replace")
    except OSError:
        return ""
