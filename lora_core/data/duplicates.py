"""Data checks of duplicates: texts that occur more than once."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lora_core.data.findings import MAX_EXAMPLES, Finding, Severity, example_of, pluralize, split_of
from lora_core.data.rows import TextRow
from lora_core.data.split import normalize_text
from lora_core.specs.data import Split

WARNING_SHARE = 0.01  # share of rows from which duplicates are a warning
_SPLIT_ORDER = {split: position for position, split in enumerate(Split)}


def sort_by_split(rows: Iterable[TextRow]) -> list[TextRow]:
    """Return the rows with train first: the later of two duplicates is the leaked one."""
    return sorted(rows, key=lambda row: _SPLIT_ORDER.get(split_of(row) or Split.TRAIN, 0))


def group_duplicates(rows: Iterable[TextRow]) -> tuple[list[TextRow], list[list[TextRow]]]:
    """Return (the first row of each text, the rows of each text that occurs more than once)."""
    first: dict[str, TextRow] = {}
    duplicates: dict[str, list[TextRow]] = {}
    for row in rows:
        text = normalize_text(row.text)
        earlier = first.setdefault(text, row)
        if earlier is not row:
            duplicates.setdefault(text, [earlier]).append(row)
    return list(first.values()), list(duplicates.values())


def check_duplicates(groups: Sequence[Sequence[TextRow]], rows: int) -> Iterator[Finding]:
    """Yield `leaked`, `conflicting_labels`, `duplicates`, for groups in the order of
    `sort_by_split`."""
    yield from _leaked(groups)
    conflicts = [pair for pair in (_conflicting_pair(group) for group in groups) if pair]
    if conflicts:
        yield Finding(
            code="conflicting_labels",
            level=Severity.WARNING,
            count=len(conflicts),
            message=f"{pluralize(len(conflicts), 'text')} with more than one label.",
            advice="Decide on one label for each, or delete the text: no model can predict both "
            "correctly.",
            examples=tuple(example_of(*pair) for pair in conflicts[:MAX_EXAMPLES]),
        )
    if count := sum(len(group) - 1 for group in groups):
        largest = sorted(groups, key=len, reverse=True)[:MAX_EXAMPLES]
        yield Finding(
            code="duplicates",
            level=duplicate_severity(count, rows),
            count=count,
            message=f"{pluralize(count, 'row')} with the same text as an earlier row.",
            advice="Delete them, unless frequent texts should count more. Drawn splits keep "
            "duplicates together.",
            examples=tuple(example_of(*group[:3]) for group in largest),
        )


def duplicate_severity(count: int, rows: int) -> Severity:
    """Return the severity for a number of duplicates: a warning from `WARNING_SHARE` on."""
    return Severity.WARNING if count >= WARNING_SHARE * rows else Severity.INFO


def describe_split_pairs(pairs: Iterable[tuple[TextRow, TextRow]]) -> str:
    """Return `3 rows of test in train`, for pairs of an earlier and a later row."""
    counts = Counter((split_of(later), split_of(earlier)) for earlier, later in pairs)
    return ", ".join(
        f"{pluralize(count, 'row')} of {later} in {earlier}"
        for (later, earlier), count in counts.items()
    )


def _leaked(groups: Sequence[Sequence[TextRow]]) -> Iterator[Finding]:
    pairs = [
        (group[0], row)
        for group in groups
        for row in group[1:]
        if split_of(row) is not split_of(group[0])
    ]
    if pairs:
        yield Finding(
            code="leaked",
            level=Severity.ERROR,
            count=len(pairs),
            message=f"Texts that occur in two splits: {describe_split_pairs(pairs)}.",
            advice="Delete them from one of the two splits: the model is scored on texts that it "
            "was trained on, so its metrics are too good.",
            examples=tuple(example_of(*pair) for pair in pairs[:MAX_EXAMPLES]),
        )


def _conflicting_pair(group: Sequence[TextRow]) -> tuple[TextRow, TextRow] | None:
    """Return two rows of a group with different labels; None if there are none."""
    other = next((row for row in group if row.label != group[0].label), None)
    return None if other is None else (group[0], other)
