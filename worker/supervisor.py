"""Watches one training process until it has left. Knows no SQL."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from threading import Event as Flag

from app.queue.transitions import ExitStatus
from app.settings import Settings
from lora_core.events import CheckpointSaved, Failed, Finished
from worker import host_health
from worker.periodic import meanwhile
from worker.recorder import Recorder
from worker.spawn import Child

LOOK_SECONDS = 0.2  # between two looks at the clock
ABORT_SECONDS = 5.0  # for the stacks of a process that hangs


class Asked(StrEnum):
    """Why the process was made to leave."""

    CANCEL = "cancel"
    DRAIN = "drain"
    STALL = "stall"
    FENCED = "fenced"
    TIME_LIMIT = "time_limit"


@dataclass(frozen=True)
class Ended:
    """How it left, and what is known about the reason."""

    left: ExitStatus
    asked: Asked | None
    failed: Failed | None  # the last word of the process, if it was this
    saved_step: int | None = None  # of the last checkpoint of this attempt that counts
    out_of_memory: bool = False  # the kernel killed it for its memory
    step: int = 0  # the last one heard of


class Supervisor:
    """Hears the process, beats, and ends it on a cancel, a drain, silence, a time limit, or a lost
    lease.
    """

    def __init__(
        self,
        child: Child,
        recorder: Recorder,
        *,
        settings: Settings,
        draining: Flag,
        keep: Callable[[CheckpointSaved], None],
        seconds: float = float("inf"),
    ) -> None:
        """`keep` takes a checkpoint that the process has saved; it may run for `seconds`."""
        self._child = child
        self._recorder = recorder
        self._settings = settings
        self._draining = draining
        self._keep = keep
        self._stop_at = time.monotonic() + seconds
        self._asked: Asked | None = None
        self._failed: Failed | None = None
        self._heard_at = time.monotonic()
        self._kill_at = float("inf")
        self._finished = False  # a process that stays has done its work

    @property
    def stays(self) -> bool:
        """Whether the process is there for another order."""
        return self._finished and self._asked is None

    def run(self) -> Ended:
        """Blocks until the process and everything that it started are gone, or until one that stays
        has finished its order, and until what it told is written.
        """
        kills = host_health.kills()
        try:
            self._watch()
            left = self._end()
            if self._asked is not Asked.FENCED:
                self._recorder.flush()
        except BaseException:
            self._child.wait()  # nobody would keep it
            raise
        asked = Asked.FENCED if self._recorder.fenced else self._asked
        killed = host_health.kills() > kills
        recorder = self._recorder
        return Ended(left, asked, self._failed, recorder.saved_step, killed, recorder.step)

    def _end(self) -> ExitStatus:
        """How it left; one that stays is as good as gone."""
        left = ExitStatus(code=0) if self.stays else self._child.wait()
        return ExitStatus(code=0) if self._finished else left

    def _watch(self) -> None:
        while not self._finished and (events := self._child.read(LOOK_SECONDS)) is not None:
            for event in events:
                self._heard_at = time.monotonic()
                self._failed = event if isinstance(event, Failed) else None
                if isinstance(event, Finished) and self._child.stays:
                    self._finished = True
                self._recorder.add(event)
                if isinstance(event, CheckpointSaved) and self._asked is not Asked.FENCED:
                    self._heard_at = float("inf")  # it is not silent: nobody listens
                    with meanwhile(self._look, seconds=LOOK_SECONDS):
                        self._keep(event)
                    self._heard_at = time.monotonic()
            if self._asked is not Asked.FENCED and self._recorder.due():
                self._recorder.write()
            self._look()

    def _look(self) -> None:
        self._decide()
        if time.monotonic() >= self._kill_at:
            self._child.kill()

    def _decide(self) -> None:
        """At most once ask it to leave; a lost lease overrules everything."""
        if self._recorder.fenced:
            self._ask(Asked.FENCED, within=0)
        elif self._asked is not None:
            return
        elif self._recorder.cancel_requested:
            self._child.stop()
            self._ask(Asked.CANCEL, within=self._settings.stop_grace_seconds)
        elif self._draining.is_set():
            self._child.stop()
            self._ask(Asked.DRAIN, within=self._settings.stop_grace_seconds)
        elif time.monotonic() > self._stop_at:
            self._child.stop()
            self._ask(Asked.TIME_LIMIT, within=self._settings.stop_grace_seconds)
        elif time.monotonic() - self._heard_at > self._settings.stall_seconds:
            self._child.abort()
            self._ask(Asked.STALL, within=ABORT_SECONDS)

    def _ask(self, asked: Asked, *, within: float) -> None:
        self._asked = asked
        self._kill_at = time.monotonic() + within
