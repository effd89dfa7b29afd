"""Arrival times, drawn before the run, so that no response can delay the next request."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Arrival:
    """One request. Times in seconds."""

    at: float  # from the start
    key: int  # the client
    hangs_up: float | None  # seconds after `at`; None: waits until its timeout
    draw: float  # 0 to 1, by which one of several addresses is taken


@dataclass(frozen=True)
class Visitors:
    """What they are like: shares of all."""

    keys: int = 1
    greedy: float = 0.0  # extra share of the first key
    hang_ups: float = 0.0
    hang_up_seconds: float = 1.0  # at most


def arrivals(
    phases: Sequence[tuple[float, float]], visitors: Visitors, seed: int
) -> Iterator[Arrival]:
    """A Poisson process; `phases` are pairs of a rate per second and seconds.

    The same seed gives the same arrivals.
    """
    random = Random(seed)  # noqa: S311 - load, not a secret
    begins = 0.0
    for rate, seconds in phases:
        at = begins + random.expovariate(rate)
        while at < begins + seconds:
            greedy, leaves = random.random() < visitors.greedy, random.random() < visitors.hang_ups
            key = random.randrange(visitors.keys)
            hangs_up = random.uniform(0, visitors.hang_up_seconds)
            yield Arrival(at, 0 if greedy else key, hangs_up if leaves else None, random.random())
            at += random.expovariate(rate)
        begins += seconds
