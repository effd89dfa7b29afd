"""Metrics of the outcomes of requests."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

IN_A_ROW = 10  # normal responses: then the overload is over

Sample = Sequence[Any]  # at (s), milliseconds, status, key


def percentile(values: Iterable[float], share: float) -> float | None:
    """The least value that `share` of them do not exceed; `None` if there are none."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)), 1) - 1] if ordered else None


def statuses(samples: Iterable[Sample]) -> dict[str, int]:
    """Count of each outcome: HTTP statuses, `left`, `late` and `lost`."""
    return dict(sorted(Counter(str(sample[2]) for sample in samples).items()))


def waits(samples: Iterable[Sample]) -> list[float]:
    """Milliseconds of admitted requests whose client stayed, including timeouts."""
    return [ms for _, ms, status, *_ in samples if status in (200, 504, "late")]


def refusals(samples: Iterable[Sample]) -> list[float]:
    """Milliseconds of rejected requests."""
    return [ms for _, ms, status, *_ in samples if status in (429, 503)]


def goodput(samples: Iterable[Sample], seconds: float) -> float:
    """In-time responses per second, within the first `seconds` of a run."""
    ends: list[float] = [at + ms / 1000 for at, ms, status, *_ in samples if status == 200]
    return sum(end <= seconds for end in ends) / seconds


def answered_share(samples: Iterable[Sample]) -> float | None:
    """Share of requests that were answered, of those whose client stayed."""
    stayed = [status == 200 for _, _, status, *_ in samples if status != "left"]
    return sum(stayed) / len(stayed) if stayed else None


def seconds_to_normal(samples: Sequence[Sample], since: float, normal_ms: float) -> float | None:
    """From `since`, the end of an overload, to the first of `IN_A_ROW` consecutive requests
    that are each answered within `normal_ms`. `None` if there are none.
    """
    after = [each for each in samples if each[0] >= since and each[2] != "left"]
    after.sort(key=lambda each: each[0])
    calm = [status == 200 and ms <= normal_ms for _, ms, status, *_ in after]
    for first in range(len(calm) - IN_A_ROW + 1):
        if all(calm[first : first + IN_A_ROW]):
            at: float = after[first][0]
            return at - since
    return None
