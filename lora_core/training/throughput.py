"""Mean loss and throughput over the last steps, without the time spent on evaluation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import Field

from lora_core.specs.fields import AliasedStoredModel, Float, Int


@dataclass(frozen=True)
class StepMeans:
    """Means over the steps since the last log line."""

    loss: float
    norm: float  # of the gradient
    texts_per_second: float
    tokens_per_second: float


class ThroughputState(AliasedStoredModel):
    """The state of a `ThroughputAndLossMeter` in state.json."""

    seconds: Float
    texts: Int = Field(alias="reviews")
    tokens: Int
    losses: list[Float]
    norms: list[Float]
    logged: tuple[Float, Int, Int] = Field(alias="told")  # seconds, texts, tokens at the last log


@dataclass
class ThroughputAndLossMeter:
    """Accumulates steps until the next log line is due."""

    log_every: int  # steps
    seconds: float  # total time spent on training
    texts: int = 0
    tokens: int = 0
    _losses: list[float] = field(default_factory=list)
    _norms: list[float] = field(default_factory=list)
    # Seconds, texts and tokens at the last log line.
    _logged: tuple[float, int, int] = field(init=False)
    _clock: float = field(default_factory=time.monotonic)  # up to here, time has been counted

    def __post_init__(self) -> None:
        self._logged = (self.seconds, 0, 0)

    def add(self, loss: float, norm: float, texts: int, tokens: int) -> None:
        """Account for one step."""
        self._count_time()
        self.texts += texts
        self.tokens += tokens
        self._losses.append(loss)
        self._norms.append(norm)

    def should_log(self, step: int, total: int) -> bool:
        return step % self.log_every == 0 or step in (1, total)

    def pop_means(self) -> StepMeans:
        """Return the means since the last call, and start new ones."""
        seconds, texts, tokens = self._logged
        elapsed = max(self.seconds - seconds, 1e-9)
        means = StepMeans(
            loss=sum(self._losses) / len(self._losses),
            norm=sum(self._norms) / len(self._norms),
            texts_per_second=(self.texts - texts) / elapsed,
            tokens_per_second=(self.tokens - tokens) / elapsed,
        )
        self._logged = (self.seconds, self.texts, self.tokens)
        self._losses, self._norms = [], []
        return means

    def state(self) -> ThroughputState:
        """Return all that the next log lines depend on, so that a resume does not change them."""
        return ThroughputState(
            seconds=self.seconds,
            texts=self.texts,
            tokens=self.tokens,
            losses=self._losses,
            norms=self._norms,
            logged=self._logged,
        )

    def load_state(self, state: ThroughputState) -> None:
        """Continue from a saved state, as if no time had passed."""
        self.seconds, self.texts, self.tokens = state.seconds, state.texts, state.tokens
        self._losses, self._norms = [*state.losses], [*state.norms]
        self._logged = state.logged
        self._clock = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time spent inside."""
        self._count_time()
        try:
            yield
        finally:
            self._clock = time.monotonic()

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now
