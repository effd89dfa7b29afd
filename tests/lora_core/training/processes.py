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
    ["lora_core.__main__", "lora_core.training.encoder", "lora_core.batch_prediction"]
)


def fork(
    arguments: list[str], environment: dict[str, str], output: Path
) -> multiprocessing.process.BaseProcess:
    """Start a command in a process that need not load torch itself.

    Its output is appended to a file.
    """
    child = FORKING.Process(target=_run, args=(arguments, environment, output))
    child.start()
    return child


def _run(arguments: list[str], environment: dict[str, str], output: Path) -> None:
    os.environ.update(environment)
    sys.argv = ["lora_core", *arguments]
    with output.open("ab") as file:  # shared by the processes of one run
        os.dup2(file.fileno(), 1)
    sys.exit(main())


@dataclass
class Attempts:
    """The attempts of one run. Events before the last checkpoint are kept."""

    spec: Path
    seconds: float = 0.0
    events: list[Event] = field(default_factory=list)  # of all attempts, before the last checkpoint
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
        """The output file of the last attempt."""
        return self.spec.parent / f"{self.spec.stem}-output-{self.count}"

    def start(self, fault: str = "") -> multiprocessing.process.BaseProcess:
        """Start another attempt from the newest reported checkpoint."""
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
        """Wait for its end; returns exit status (negative for a signal) and events."""
        child.join(60)
        assert child.exitcode is not None, "it should have left"
        events = self.read_events()
        saved = [event.step for event in events if event.event == "checkpoint"]
        if saved:
            self.newest = self.checkpoints / f"step-{saved[-1]}"
        if child.exitcode == 0:
            self.events += events
        elif saved:
            self.events += events_before(events, saved[-1])
        return child.exitcode, events

    def attempt(self, fault: str = "") -> tuple[int, list[Event]]:
        """Start, and wait for its end."""
        return self.end(self.start(fault))

    def read_events(self) -> list[Event]:
        """The events reported so far."""
        complete = self.lines.read_bytes().rpartition(b"\n")[0] if self.lines.exists() else b""
        return [parse_event(line) for line in complete.splitlines()]

    def wait_for(self, **wanted: object) -> None:
        """Wait for an event with these values."""
        wait_until(
            lambda: any(
                wanted.items() <= event.model_dump().items() for event in self.read_events()
            ),
            what=str(wanted),
        )
