"""Real processes of runs, to be killed: each is `python -m lora_core train`, or `predict-file`, in
all but its start.

They are forked from a process that has loaded the libraries and computed nothing. That takes a
fraction of a second instead of several.
"""

import multiprocessing
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from lora_core.__main__ import main
from lora_core.events import Event, parse_event
from lora_core.failpoints import ENV_VARIABLE
from tests.lora_core.training.twins import events_before
from tests.waiting import wait_until

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(
    ["lora_core.__main__", "lora_core.training.run", "lora_core.prediction.run"]
)


def fork(
    arguments: list[str], environment: dict[str, str], told: Path
) -> multiprocessing.process.BaseProcess:
    """Start a command in a process that need not load torch itself.

    What it tells is added to a file.
    """
    child = FORKING.Process(target=_run, args=(arguments, environment, told))
    child.start()
    return child


def _run(arguments: list[str], environment: dict[str, str], told: Path) -> None:
    os.environ.update(environment)
    sys.argv = ["lora_core", *arguments]
    with told.open("ab") as file:  # which the processes of one run share
        os.dup2(file.fileno(), 1)
    sys.exit(main())


@dataclass
class Attempts:
    """One run in as many processes as it takes. What a checkpoint makes stand is kept."""

    spec: Path
    seconds: float = 0.0
    told: list[Event] = field(default_factory=list)  # by all attempts, before the last checkpoint
    newest: Path | None = None
    count: int = 0
    command: str = "train"

    @property
    def checkpoints(self) -> Path:
        return self.spec.parent / f"{self.spec.stem}-checkpoints"

    @property
    def out(self) -> Path:
        """Of the last attempt."""
        return self.spec.parent / f"{self.spec.stem}-out-{self.count}"

    @property
    def lines(self) -> Path:
        """What the last attempt told."""
        return self.spec.parent / f"{self.spec.stem}-told-{self.count}"

    def start(self, fault: str = "") -> multiprocessing.process.BaseProcess:
        """Another attempt, from the newest checkpoint that was told."""
        self.count += 1
        arguments = [str(self.spec), "--out", str(self.out)]
        arguments += ["--checkpoints", str(self.checkpoints)]
        arguments += ["--checkpoint-seconds", str(self.seconds)]
        if self.newest is not None:
            arguments += ["--resume", str(self.newest)]
        cache = str(self.spec.parent / "cache")
        environment = {ENV_VARIABLE: fault, "LORAWORKS_CACHE": cache}
        return self.launch(arguments, environment)

    def launch(
        self, arguments: list[str], environment: dict[str, str]
    ) -> multiprocessing.process.BaseProcess:
        return fork([self.command, *arguments], environment, self.lines)

    def end(self, child: multiprocessing.process.BaseProcess) -> tuple[int, list[Event]]:
        """Its exit status (a signal is negative) and what it told."""
        child.join(60)
        assert child.exitcode is not None, "it should have left"
        events = self.heard()
        saved = [event.step for event in events if event.event == "checkpoint"]
        if saved:
            self.newest = self.checkpoints / f"step-{saved[-1]}"
        if child.exitcode == 0:
            self.told += events
        elif saved:
            self.told += events_before(events, saved[-1])
        return child.exitcode, events

    def attempt(self, fault: str = "") -> tuple[int, list[Event]]:
        """Start, and wait for its end."""
        return self.end(self.start(fault))

    def heard(self) -> list[Event]:
        """What the attempt has told so far."""
        whole = self.lines.read_bytes().rpartition(b"\n")[0] if self.lines.exists() else b""
        return [parse_event(line) for line in whole.splitlines()]

    def wait_for(self, **wanted: object) -> None:
        """Until an event was told that has these values."""
        wait_until(
            lambda: any(wanted.items() <= event.model_dump().items() for event in self.heard()),
            what=str(wanted),
        )
