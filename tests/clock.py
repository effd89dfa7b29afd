"""A clock that tests control."""


class Clock:
    """Returns `now`, which tests change."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
