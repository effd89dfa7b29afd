"""What is known of a training run so far. Streams and local runs feed it, displays read it."""

from collections import deque
from dataclasses import dataclass, field

Series = tuple[str, str]  # part and figure, such as ("validation", "accuracy")

TRAIN_LOSS: Series = ("train", "loss")
ACCURACY: Series = ("validation", "accuracy")
SPEED: Series = ("train", "reviews_per_second")
KEPT_NOTES = 6
RATE_POINTS = 20  # the rate is that of the last so many points


@dataclass
class Curve:
    """Values by step. A new attempt replaces what the one before it drew from that step on."""

    attempt: int = 0
    values: dict[int, float] = field(default_factory=dict)

    def add(self, step: int, value: float, attempt: int) -> None:
        if attempt > self.attempt:
            self.values = {old: kept for old, kept in self.values.items() if old < step}
            self.attempt = attempt
        self.values[step] = value

    def last(self) -> float | None:
        return self.values[max(self.values)] if self.values else None

    def ordered(self) -> list[float]:
        return [self.values[step] for step in sorted(self.values)]


@dataclass
class Progress:
    """State, position, curves and the last notes of one run. Times are seconds since 1970."""

    title: str
    state: str = "queued"
    queue_position: int | None = None
    step: int = 0
    total: int | None = None
    unit: str = "step"
    curves: dict[Series, Curve] = field(default_factory=dict)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_NOTES))
    _pace: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RATE_POINTS))

    def note(self, message: str) -> None:
        self.notes.append(message)

    def point(
        self, series: Series, step: int, value: float, *, at: float, attempt: int = 1
    ) -> None:
        self.curves.setdefault(series, Curve()).add(step, value, attempt)
        if series == TRAIN_LOSS:
            self.reach(step, at=at)

    def reach(self, step: int, *, at: float) -> None:
        """So far it has come."""
        self.step = step
        if self._pace and step <= self._pace[-1][1]:  # begun anew
            self._pace.clear()
        self._pace.append((at, step))

    def curve(self, series: Series) -> Curve:
        return self.curves.get(series, Curve())

    @property
    def rate(self) -> float | None:
        """Steps a second."""
        if len(self._pace) < 2:
            return None
        (began, first), (ended, last) = self._pace[0], self._pace[-1]
        return (last - first) / (ended - began) if ended > began else None

    @property
    def seconds_left(self) -> float | None:
        rate, left = self.rate, (self.total or 0) - self.step
        return left / rate if rate and left > 0 else None
