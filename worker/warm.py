"""A training process from one cell of a sweep to the next: most of a short run is its start."""

from app.queue.fencing import Claimed
from worker import launch
from worker.launch import Child, Order


class Warm:
    """The process of one thread, which alone may use it: it dies with the thread that started it.

    Only cells of sweeps share one: other jobs have theirs to themselves.
    """

    def __init__(self) -> None:
        self._child: Child | None = None
        self._made_for: tuple[object, ...] = ()

    def __bool__(self) -> bool:
        """Whether a process waits for an order."""
        return self._child is not None

    @staticmethod
    def suits(claimed: Claimed) -> bool:
        """Whether a job may share its process."""
        return claimed.sweep_id is not None

    def start(self, order: Order) -> Child:
        """A process that does this: the one that waits, if it was made for the like, or a new one.

        What `launch.start` says of the calling thread holds for both.
        """
        child, self._child = self._child, None
        if child is not None:
            try:
                if order.stays and order.process == self._made_for and child.take(order):
                    return child
            except BaseException:
                child.wait()
                raise
            child.wait()
        return launch.start(order)

    def keep(self, child: Child, order: Order) -> None:
        """It has finished its order, and waits for another one."""
        self._child, self._made_for = child, order.process
        # From now on this is not what runs there, and nobody may kill it for being left over.
        order.place.child.unlink(missing_ok=True)

    def close(self) -> None:
        """End the process that waits."""
        if self._child is not None:
            self._child.wait()
            self._child = None
