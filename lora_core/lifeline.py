"""When to stop: on SIGTERM or SIGINT, or when the parent that holds our standard input is gone."""

import os
import signal
import threading
from types import FrameType

from lora_core import exit_codes
from lora_core.process import of_one_run


class Lifeline:
    """A stop signal that the training loop asks between two steps."""

    def __init__(self) -> None:
        self._requested = False

    def requested(self) -> bool:
        return self._requested

    def listen(self) -> None:
        """Stop at the next step on SIGTERM or SIGINT; a second one ends the process at once.

        Not where `torchrun` stands above it: that passes on what the process may have heard itself,
        and ends it by SIGKILL when it takes too long.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def follow_parent(self) -> None:
        """Leave at once when standard input ends: nobody is left to take the result."""
        threading.Thread(target=self._wait_for_end, name="lifeline", daemon=True).start()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL if of_one_run() == 1 else signal.SIG_IGN)
        self._requested = True

    def _wait_for_end(self) -> None:
        # Not through `sys.stdin`: a thread inside its lock makes the interpreter abort at its end.
        while os.read(0, 4096):
            pass
        os._exit(exit_codes.STOPPED)
