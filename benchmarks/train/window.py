"""When a measurement of steady steps ends."""

from dataclasses import dataclass
from typing import Protocol


class End(Protocol):
    """Decides after each step whether it was the last; `a_pass` steps belong together."""

    @property
    def a_pass(self) -> int: ...

    def over(self, steps: int, elapsed: float) -> bool: ...


@dataclass(frozen=True)
class Window:
    """Full passes of `a_pass` steps, as many as come closest to `seconds`; at least one.

    Steps of short and long texts differ greatly in time, so only full passes are comparable.
    """

    seconds: float
    a_pass: int

    def over(self, steps: int, elapsed: float) -> bool:
        """Whether to stop after these steps and seconds."""
        passes, rest = divmod(steps, self.a_pass)
        return passes > 0 and rest == 0 and elapsed * (passes + 0.5) / passes >= self.seconds
