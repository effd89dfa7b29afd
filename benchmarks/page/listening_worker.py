"""A worker that records when it receives each step.

`python -m benchmarks.page.listening_worker FILE`. A line of FILE: the step, and the time in seconds
since 1970.
"""

import sys
import time
from pathlib import Path

from lora_core.events import Event, StepLogged
from worker.__main__ import main
from worker.recorder import Recorder


def listen(file: Path) -> None:
    """Patch this process."""
    add_event = Recorder.add_event

    def noted(self: Recorder, event: Event) -> None:
        if isinstance(event, StepLogged):
            with file.open("a", encoding="utf-8") as lines:
                lines.write(f"{event.step} {time.time()}\n")
        add_event(self, event)

    Recorder.add_event = noted  # type: ignore[method-assign]


def received_steps(file: Path) -> dict[int, float]:
    """Step → when it was received."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    return {int(step): float(at) for step, at in lines}


if __name__ == "__main__":
    listen(Path(sys.argv.pop()))
    sys.exit(main())
