"""How many jobs this worker trains at the same time."""

import threading


class Slots:
    """A counter in memory; threads wait for it to change."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._changed = threading.Condition()

    def take(self, timeout: float) -> bool:
        """Wait for a free slot, at most so many seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free > 0, timeout):
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """Free a slot that was taken."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no slot is taken, at most so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self._count, timeout)
