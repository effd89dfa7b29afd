"""Mean loss and throughput over the last steps, without the time spent on evaluation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lora_core.specs.fields import Float, FrozenModel, Int


@dataclass(frozen=True)
class StepMeans:
    """Means over the steps since the last log line."""

    loss: float
    norm: float  # of the gradient
    reviews_per_second: float
    tokens_per_second: float


class ThroughputState(FrozenModel):
    """The state of a `Throughput` in state.json."""

    seconds: Float
    reviews: Int
    tokens: Int
    losses: list[Float]
    norms: list[Float]
    told: tuple[Float, Int, Int]  # seconds, reviews and tokens at the last log line


@dataclass
class Throughput:
    """Accumulates steps until the next log line is due."""

    log_every: int  # steps
    seconds: float  # total time spent on training
    reviews: int = 0
    tokens: int = 0
    _losses: list[float] = field(default_factory=list)
    _norms: list[float] = field(default_factory=list)
    # Seconds, reviews and tokens at the last log line.
    _logged: tuple[float, int, int] = field(init=False)
    _clock: float = field(default_factory=time.monotonic)  # up to here, time has been counted

    def __post_init__(self) -> None:
        self._logged = (self.seconds, 0, 0)

    def add(self, loss: float, norm: float, reviews: int, tokens: int) -> None:
        """Account for one step."""
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now
        self.reviews += reviews
        self.tokens += tokens
        self._losses.append(loss)
        self._norms.append(norm)

    def should_log(self, step: int, total: int) -> bool:
        return step % self.log_every == 0 or step in (1, total)

    def pop_means(self) -> StepMeans:
        """Return the means since the last call, and start new ones."""
        seconds, reviews, tokens = self._logged
        elapsed = max(self.seconds - seconds, 1e-9)
        means = StepMeans(
            loss=sum(self._losses) / len(self._losses),
            norm=sum(self._norms) / len(self._norms),
            reviews_per_second=(self.reviews - reviews) / elapsed,
            tokens_per_second=(self.tokens - tokens) / elapsed,
        )
        self._logged = (self.seconds, self.reviews, self.tokens)
        self._losses, self._norms = [], []
        return means

    def state(self) -> ThroughputState:
        """Return all that the next log lines depend on, so that a resume does not change them."""
        return ThroughputState(
            seconds=self.seconds,
            reviews=self.reviews,
            tokens=self.tokens,
            losses=self._losses,
            norms=self._norms,
            told=self._logged,
        )

    def load_state(self, state: ThroughputState) -> None:
        """Continue from a saved state, as if no time had passed."""
        self.seconds, self.reviews, self.tokens = state.seconds, state.reviews, state.tokens
        self._losses, self._norms = [*state.losses], [*state.norms]
        self._logged = state.told
        self._clock = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time spent inside."""
        yield
        self._clock = time.monotonic()
