"""Data checks of duplicates: texts that occur more than once, exactly or nearly."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from lora_core.data.data_report import (
    MAX_EXAMPLES,
    Finding,
    FindingExample,
    Severity,
    assigned_split,
    format_count,
    make_finding_example,
)
from lora_core.data.rows import TextRow
from lora_core.data.stratify import normalized_text_key
from lora_core.specs.data import Split
from lora_core.specs.task import TaskType

WARNING_SHARE = 0.01  # share of rows from which duplicates are a warning
_SPLIT_ORDER = {split: position for position, split in enumerate(Split)}


def sort_by_split(rows: Iterable[TextRow]) -> list[TextRow]:
    """Return the rows with train first: the later of two duplicates is the leaked one."""
    return sorted(rows, key=lambda row: _SPLIT_ORDER.get(assigned_split(row) or Split.TRAIN, 0))


def group_duplicates(rows: Iterable[TextRow]) -> tuple[list[TextRow], list[list[TextRow]]]:
    """Return (the first row of each text, the rows of each text that occurs more than once)."""
    first: dict[str, TextRow] = {}
    duplicates: dict[str, list[TextRow]] = {}
    for row in rows:
        key = normalized_text_key(row)
        earlier = first.setdefault(key, row)
        if earlier is not row:
            duplicates.setdefault(key, [earlier]).append(row)
    return list(first.values()), list(duplicates.values())


@dataclass(frozen=True)
class LabelConflictCriterion:
    """When two rows with the same text contradict each other."""

    what: str  # the labels that a text has then
    other: str  # the label that the second row has then
    tolerance: float = 0.0  # of numbers

    @classmethod
    def of_task(cls, task: TaskType, rows: Sequence[TextRow]) -> "LabelConflictCriterion":
        match task:
            case "single_label":
                return cls("more than one label", "a different label")
            case "multi_label":
                return cls("more than one set of labels", "a different set of labels")
            case "several_targets":
                return cls("different values of a target", "a different value of a target")
            case "regression":
                std = float(np.std([float(row.label) for row in rows]))
                different = "more than one standard deviation"
                return cls(
                    f"numbers that differ by {different}",
                    f"a number that differs by {different}",
                    tolerance=std,
                )

    def find_pair(self, group: Sequence[TextRow]) -> tuple[TextRow, TextRow] | None:
        """Return two rows of a group that contradict each other, in its order, if any do."""
        if self.tolerance:  # the most distant ones: two may each be near to the first
            ascending = sorted(group, key=lambda row: float(row.label))
            earlier, later = sorted((ascending[0], ascending[-1]), key=group.index)
        else:
            earlier = group[0]
            later = next((row for row in group if row.label != earlier.label), earlier)
        return (earlier, later) if self.labels_conflict(earlier, later) else None

    def labels_conflict(self, one: TextRow, other: TextRow) -> bool:
        if self.tolerance:
            return abs(float(one.label) - float(other.label)) > self.tolerance
        return one.label != other.label


def check_duplicates(
    groups: Sequence[Sequence[TextRow]], rows: int, contradiction: LabelConflictCriterion
) -> Iterator[Finding]:
    """Yield `leaked`, `conflicting_labels`, `duplicates`, for groups in the order of
    `sort_by_split`."""
    yield from _leaked(groups)
    conflicts = [pair for group in groups if (pair := contradiction.find_pair(group))]
    if conflicts:
        yield Finding(
            code="conflicting_labels",
            level=Severity.WARNING,
            count=len(conflicts),
            message=f"{format_count(len(conflicts), 'text')} with {contradiction.what}.",
            advice="Decide on one for each, or delete the text: no model can predict both "
            "correctly.",
            examples=tuple(make_finding_example(*pair) for pair in conflicts[:MAX_EXAMPLES]),
        )
    if count := sum(len(group) - 1 for group in groups):
        largest = sorted(groups, key=len, reverse=True)[:MAX_EXAMPLES]
        yield Finding(
            code="duplicates",
            level=duplicate_severity(count, rows),
            count=count,
            message=f"{format_count(count, 'row')} with the same text as an earlier row.",
            advice="Delete them, unless frequent texts should count more. Drawn splits keep "
            "duplicates together.",
            examples=tuple(make_finding_example(*group[:3]) for group in largest),
        )


def duplicate_severity(count: int, rows: int) -> Severity:
    """Return the severity for a number of duplicates: a warning from `WARNING_SHARE` on."""
    return Severity.WARNING if count >= WARNING_SHARE * rows else Severity.INFO


def describe_leaks_by_split(pairs: Iterable[tuple[TextRow, TextRow]]) -> str:
    """Return `3 rows of test in train`, for pairs of an earlier and a later row."""
    counts = Counter((assigned_split(later), assigned_split(earlier)) for earlier, later in pairs)
    return ", ".join(
        f"{format_count(count, 'row')} of {later} in {earlier}"
        for (later, earlier), count in counts.items()
    )


def _leaked(groups: Sequence[Sequence[TextRow]]) -> Iterator[Finding]:
    pairs = [
        (group[0], row)
        for group in groups
        for row in group[1:]
        if assigned_split(row) is not assigned_split(group[0])
    ]
    if pairs:
        yield Finding(
            code="leaked",
            level=Severity.ERROR,
            count=len(pairs),
            message=f"Texts that occur in two splits: {describe_leaks_by_split(pairs)}.",
            advice="Delete them from one of the two splits: the model is scored on texts that it "
            "was trained on, so its metrics are too good.",
            examples=tuple(make_finding_example(*pair) for pair in pairs[:MAX_EXAMPLES]),
        )


# -- Near-duplicates, without comparing all pairs of texts ----------------------------------------

# A text is represented by the set of its word bigrams. For each of many hash functions the minimum
# over the set is kept (MinHash, Broder 1997): the share of equal minima of two texts estimates the
# Jaccard similarity of their sets. Only texts that agree in a whole band of minima are compared,
# each with the first text of its bucket, so that the time is never quadratic.


MIN_SIMILARITY = 0.8  # Jaccard similarity from which two texts are near-duplicates
NUM_HASHES = 128  # per text; the standard error of a similarity of 0.8 is then 0.035
NUM_BANDS = 32  # of four hashes each: texts of similarity 0.8 almost certainly share one
# A word. Chinese and Japanese are written without spaces, so each of their characters is one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


class NearDuplicatePair(NamedTuple):
    """Two texts that are nearly, but not exactly, the same."""

    earlier: TextRow
    later: TextRow
    similarity: float


def find_near_duplicates(rows: Sequence[TextRow]) -> list[NearDuplicatePair]:
    """Return for each text the first earlier row that is a near-duplicate.

    The similarity of two pairs is that of their less similar texts: many pairs may share a long
    first text.
    """
    distinct, _ = group_duplicates(rows)
    signatures = np.array([_signatures(row) for row in distinct])  # (rows, sides, NUM_HASHES)
    order = np.arange(len(signatures))
    nearest = order
    for band in np.split(signatures, NUM_BANDS, axis=2):
        by_row = band.reshape(len(band), -1)
        _, first, bucket = np.unique(by_row, axis=0, return_index=True, return_inverse=True)
        earlier = first[bucket.ravel()]
        similar = _similarity(signatures, signatures[earlier]) >= MIN_SIMILARITY
        nearest = np.where(similar, np.minimum(nearest, earlier), nearest)
    similarity = _similarity(signatures, signatures[nearest])
    return [
        NearDuplicatePair(distinct[nearest[i]], distinct[i], float(similarity[i]))
        for i in np.flatnonzero(nearest < order)
    ]


def _signatures(row: TextRow) -> list[NDArray[np.uint32]]:
    return [_minhash(text) for text in (row.text, row.pair) if text is not None]


def _similarity(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the estimated similarity of rows, a and b (rows, sides, NUM_HASHES)."""
    similarity: NDArray[np.float64] = (a == b).mean(axis=2).min(axis=1)
    return similarity


def check_near_duplicates(
    rows: Sequence[TextRow], contradiction: LabelConflictCriterion
) -> Iterator[Finding]:
    """Yield `nearly_leaked`, `nearly_conflicting`, `near_duplicates`, for rows sorted by split."""
    near_duplicates = sorted(find_near_duplicates(rows), key=lambda pair: -pair.similarity)
    if leaks := [
        pair
        for pair in near_duplicates
        if assigned_split(pair.earlier) is not assigned_split(pair.later)
    ]:
        yield Finding(
            code="nearly_leaked",
            level=Severity.WARNING,
            count=len(leaks),
            message="Near-duplicates of a text in another split: "
            f"{describe_leaks_by_split((pair.earlier, pair.later) for pair in leaks)}.",
            advice="Keep such texts in one split: the metrics of the other one are too good.",
            examples=_pair_examples(leaks),
        )
    if conflicts := [
        pair for pair in near_duplicates if contradiction.labels_conflict(pair.earlier, pair.later)
    ]:
        yield Finding(
            code="nearly_conflicting",
            level=duplicate_severity(len(conflicts), len(rows)),
            count=len(conflicts),
            message=f"{format_count(len(conflicts), 'text')} nearly the same as another one, but "
            f"with {contradiction.other}.",
            advice="Check whether the difference justifies that. If not, correct one.",
            examples=_pair_examples(conflicts),
        )
    if near_duplicates:
        yield Finding(
            code="near_duplicates",
            level=duplicate_severity(len(near_duplicates), len(rows)),
            count=len(near_duplicates),
            message=f"{format_count(len(near_duplicates), 'text')} nearly the same as an earlier "
            "one.",
            advice="Drawn splits keep exact duplicates together, but not near-duplicates, so "
            "metrics may be too good. Delete them, or define the splits yourself.",
            examples=_pair_examples(near_duplicates),
        )


def _pair_examples(near_duplicates: Sequence[NearDuplicatePair]) -> tuple[FindingExample, ...]:
    return tuple(
        make_finding_example(pair.earlier, pair.later, similarity=round(pair.similarity, 2))
        for pair in near_duplicates[:MAX_EXAMPLES]
    )


def _minhash(text: str) -> NDArray[np.uint32]:
    """Return the signature (NUM_HASHES,), ignoring case, white space and punctuation."""
    lowered = text.casefold()
    words = _WORD.findall(lowered) or [lowered]
    sketch = RMinHash(num_perm=NUM_HASHES, seed=0)
    sketch.update([" ".join(pair) for pair in pairwise(words)] or words)
    return np.array(sketch.digest(), dtype=np.uint32)
