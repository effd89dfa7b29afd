"""Texts that stand in a file more than once."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lora_core.data.findings import EXAMPLES, Finding, Level, counted, part, together
from lora_core.data.rows import Row
from lora_core.data.split import normalised
from lora_core.specs.data import Split

MANY = 0.01  # share of rows from which copies are worth a warning
_ORDER = {split: place for place, split in enumerate(Split)}


def by_part(rows: Iterable[Row]) -> list[Row]:
    """Train first: what comes later is what leaked."""
    return sorted(rows, key=lambda row: _ORDER.get(part(row) or Split.TRAIN, 0))


def grouped(rows: Iterable[Row]) -> tuple[list[Row], list[list[Row]]]:
    """(the first row of each text, all rows of each text that stands there more than once)."""
    first: dict[str, Row] = {}
    copies: dict[str, list[Row]] = {}
    for row in rows:
        text = normalised(row.text)
        earlier = first.setdefault(text, row)
        if earlier is not row:
            copies.setdefault(text, [earlier]).append(row)
    return list(first.values()), list(copies.values())


def findings(groups: Sequence[Sequence[Row]], rows: int) -> Iterator[Finding]:
    """`leaked`, `conflicting_labels`, `duplicates`, from groups in the order of `by_part`."""
    yield from _leaked(groups)
    torn = [each for each in (_differing(group) for group in groups) if each]
    if torn:
        yield Finding(
            code="conflicting_labels",
            level=Level.WARNING,
            count=len(torn),
            message=f"{counted(len(torn), 'text')} with more than one label.",
            advice="Decide on one label for each, or delete the text: no model can answer both "
            "rightly.",
            examples=tuple(together(*pair) for pair in torn[:EXAMPLES]),
        )
    if count := sum(len(group) - 1 for group in groups):
        largest = sorted(groups, key=len, reverse=True)[:EXAMPLES]
        yield Finding(
            code="duplicates",
            level=level(count, rows),
            count=count,
            message=f"{counted(count, 'row')} with the text of an earlier one.",
            advice="Delete them, unless a frequent text is meant to count more. Parts that are "
            "drawn keep copies together.",
            examples=tuple(together(*group[:3]) for group in largest),
        )


def level(count: int, rows: int) -> Level:
    """Of copies: a warning once there are many of them."""
    return Level.WARNING if count >= MANY * rows else Level.INFO


def across(pairs: Iterable[tuple[Row, Row]]) -> str:
    """`3 rows of test in train`, for pairs of an earlier and a later row."""
    counts = Counter((part(later), part(earlier)) for earlier, later in pairs)
    return ", ".join(
        f"{counted(count, 'row')} of {later} in {earlier}"
        for (later, earlier), count in counts.items()
    )


def _leaked(groups: Sequence[Sequence[Row]]) -> Iterator[Finding]:
    pairs = [
        (group[0], row) for group in groups for row in group[1:] if part(row) is not part(group[0])
    ]
    if pairs:
        yield Finding(
            code="leaked",
            level=Level.ERROR,
            count=len(pairs),
            message=f"Texts that stand in two parts: {across(pairs)}.",
            advice="Delete them from one of the two: a model is asked what it has learnt by "
            "heart, and its figures are too good.",
            examples=tuple(together(*pair) for pair in pairs[:EXAMPLES]),
        )


def _differing(group: Sequence[Row]) -> tuple[Row, Row] | None:
    """Two rows of a group with different labels."""
    other = next((row for row in group if row.label != group[0].label), None)
    return None if other is None else (group[0], other)
