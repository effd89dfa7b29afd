"""Means over the last steps, and throughput without the time spent on evaluation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lora_core.specs.frozen import Float, Frozen, Int


@dataclass(frozen=True)
class Means:
    """Over the steps since the last log line."""

    loss: float
    norm: float
    reviews_per_second: float
    tokens_per_second: float


class PaceFigures(Frozen):
    """What a checkpoint keeps of a pace."""

    seconds: Float
    reviews: Int
    tokens: Int
    losses: list[Float]
    norms: list[Float]
    told: tuple[Float, Int, Int]


@dataclass
class Pace:
    """Collects steps until the next log line is due."""

    log_every: int  # steps
    seconds: float  # spent on training, all in all
    reviews: int = 0
    tokens: int = 0
    _losses: list[float] = field(default_factory=list)
    _norms: list[float] = field(default_factory=list)
    _told: tuple[float, int, int] = field(init=False)  # seconds, reviews, tokens at the last line
    _mark: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._told = (self.seconds, 0, 0)

    def add(self, loss: float, norm: float, reviews: int, tokens: int) -> None:
        """Account for one step."""
        now = time.monotonic()
        self.seconds += now - self._mark
        self._mark = now
        self.reviews += reviews
        self.tokens += tokens
        self._losses.append(loss)
        self._norms.append(norm)

    def log_due(self, step: int, total: int) -> bool:
        return step % self.log_every == 0 or step in (1, total)

    def take(self) -> Means:
        """The means since the last call."""
        seconds, reviews, tokens = self._told
        elapsed = max(self.seconds - seconds, 1e-9)
        means = Means(
            loss=sum(self._losses) / len(self._losses),
            norm=sum(self._norms) / len(self._norms),
            reviews_per_second=(self.reviews - reviews) / elapsed,
            tokens_per_second=(self.tokens - tokens) / elapsed,
        )
        self._told = (self.seconds, self.reviews, self.tokens)
        self._losses, self._norms = [], []
        return means

    def figures(self) -> PaceFigures:
        """All that the next lines depend on: else the first mean after a resume were another."""
        return PaceFigures(
            seconds=self.seconds,
            reviews=self.reviews,
            tokens=self.tokens,
            losses=self._losses,
            norms=self._norms,
            told=self._told,
        )

    def restore(self, figures: PaceFigures) -> None:
        """Go on from there, as if no time had passed."""
        self.seconds, self.reviews, self.tokens = figures.seconds, figures.reviews, figures.tokens
        self._losses, self._norms = [*figures.losses], [*figures.norms]
        self._told = figures.told
        self._mark = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside does not count."""
        yield
        self._mark = time.monotonic()
