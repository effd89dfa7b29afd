"""How many calls may wait."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from app.serving.errors import Busy

_WEIGHT = 0.1  # of the newest call in the running mean
_LONGEST = 30  # seconds that a caller is told to wait at most


class Admission:
    """Places between the door and the answer. Whoever finds none is refused at once.

    A place is taken before anything is looked up, loaded or tokenised, so that a refusal costs
    nothing. Used on the event loop only.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._seconds = 0.1  # running mean of what one call keeps a model busy

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises `Busy`, which says when it is worth trying again."""
        if self.taken >= self.limit:
            wait = math.ceil(self.taken * self._seconds)
            raise Busy(limit=self.limit, retry_after=min(max(wait, 1), _LONGEST))
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def took(self, seconds: float) -> None:
        """What a call kept its model busy."""
        self._seconds += _WEIGHT * (seconds - self._seconds)
