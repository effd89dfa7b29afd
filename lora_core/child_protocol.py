"""How `python -m lora_core` leaves, for whoever started it."""

import os
import signal
import threading
from queue import SimpleQueue
from types import FrameType

from lora_core.process import of_one_run

FAILED = 65  # a cause that a user can act on; a `failed` event came before
STOPPED = 75  # asked to stop


# MERGED lora_core.child_protocol
# What the parent says: to stop, by SIGTERM or SIGINT; to go on with more, by a line into standard
# input; and that it is gone, by the end of that.


class Lifeline:
    """A stop signal that the training loop asks between two steps."""

    def __init__(self) -> None:
        self._requested = False
        self._lines = SimpleQueue[bytes]()

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

    def next_line(self) -> bytes:
        """What the parent says next; waits for it. Only with `follow_parent`."""
        return self._lines.get()

    def _wait_for_end(self) -> None:
        # Not through `sys.stdin`: a thread inside its lock makes the interpreter abort at its end.
        rest = b""
        while chunk := os.read(0, 4096):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._lines.put(line)
        os._exit(STOPPED)
