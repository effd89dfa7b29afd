"""What the questions of a run became, in figures."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

IN_A_ROW = 10  # questions answered as on a calm day: then the overload is over

Sample = Sequence[Any]  # at (s), milliseconds, status, key


def percentile(values: Iterable[float], share: float) -> float | None:
    """The least value that `share` of them do not exceed; `None` if there are none."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)), 1) - 1] if ordered else None


def statuses(samples: Iterable[Sample]) -> dict[str, int]:
    """How often each came; beside those of HTTP: `left`, `late`, `lost`."""
    return dict(sorted(Counter(str(sample[2]) for sample in samples).items()))


def waits(samples: Iterable[Sample]) -> list[float]:
    """Milliseconds of those that were let in and stayed, those that waited in vain among them."""
    return [ms for _, ms, status, *_ in samples if status in (200, 504, "late")]


def refusals(samples: Iterable[Sample]) -> list[float]:
    """Milliseconds until a visitor knew that there was no place."""
    return [ms for _, ms, status, *_ in samples if status in (429, 503)]


def goodput(samples: Iterable[Sample], seconds: float) -> float:
    """Answers a second that came in time, within the first `seconds` of a run."""
    ends: list[float] = [at + ms / 1000 for at, ms, status, *_ in samples if status == 200]
    return sum(end <= seconds for end in ends) / seconds


def answered_share(samples: Iterable[Sample]) -> float | None:
    """Of those that stayed, the share that was answered."""
    stayed = [status == 200 for _, _, status, *_ in samples if status != "left"]
    return sum(stayed) / len(stayed) if stayed else None


def seconds_to_normal(samples: Sequence[Sample], since: float, normal_ms: float) -> float | None:
    """From `since`, the end of an overload, to the first of `IN_A_ROW` questions one after the
    other that are each answered within `normal_ms`. `None` if that never comes.
    """
    after = [each for each in samples if each[0] >= since and each[2] != "left"]
    after.sort(key=lambda each: each[0])
    calm = [status == 200 and ms <= normal_ms for _, ms, status, *_ in after]
    for first in range(len(calm) - IN_A_ROW + 1):
        if all(calm[first : first + IN_A_ROW]):
            at: float = after[first][0]
            return at - since
    return None
