"""Extrapolates the time of a long training from its throughput."""

from dataclasses import dataclass, field


@dataclass
class Limit:
    """Lets a training end early if all of its steps would take more than `longest` seconds.

    Measures at least `window` seconds after `warmup` steps, in full passes of `a_pass`
    steps: steps of short and of long texts differ by far.
    """

    steps: int  # of the whole training
    longest: float
    window: float
    a_pass: int = 1
    warmup: int = 2
    warm: float = field(default=0.0, init=False)  # seconds of the warm-up

    def over(self, steps: int, elapsed: float) -> bool:
        """Whether to stop after these steps and seconds."""
        if steps == self.warmup:
            self.warm = elapsed
        passes, rest = divmod(steps - self.warmup, self.a_pass)
        if passes < 1 or rest or elapsed - self.warm < self.window:
            return False
        return elapsed + self.rest(steps, elapsed) > self.longest

    def rest(self, steps: int, elapsed: float) -> float:
        """Seconds that the steps would take that were left out."""
        if steps >= self.steps:
            return 0.0
        return (self.steps - steps) * (elapsed - self.warm) / (steps - self.warmup)
