"""Stratification: parts of a dataset in which each label has its share of the texts.

All rows with the same text stay together. Texts are in the order of the sha256 of (seed, text), so
nothing depends on row order, on the machine or on a random generator.
"""

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from operator import attrgetter

import numpy as np

from lora_core.data.rows import TextRow
from lora_core.specs.encoded_labels import decode_label_set, decode_targets, qualified_output_name
from lora_core.specs.task import TaskType


def normalize_text(text: str) -> str:
    """Return the form in which texts are compared: NFC, without surrounding white space."""
    return unicodedata.normalize("NFC", text).strip()


def normalized_text_key(row: TextRow) -> str:
    """Return what rows are compared by: the normalized text, or both texts of a pair.

    No text contains the NUL that joins them.
    """
    text = normalize_text(row.text)
    return text if row.pair is None else f"{text}\0{normalize_text(row.pair)}"


@dataclass(frozen=True)
class TextGroup:
    """All rows with the same text, or the same pair of texts."""

    key: str  # the position of the text
    rows: tuple[TextRow, ...]


Groups = list[TextGroup]  # in the order of their keys


def group_rows_by_text(rows: Sequence[TextRow], seed: int) -> Groups:
    """Group the rows of each text."""
    duplicates: dict[str, list[TextRow]] = defaultdict(list)
    for row in rows:
        duplicates[_hash_key(row, seed)].append(row)
    return [
        TextGroup(key, tuple(sorted(duplicates[key], key=_row_order))) for key in sorted(duplicates)
    ]


def ungroup(groups: Groups) -> list[TextRow]:
    """Return the rows of all groups."""
    return [row for group in groups for row in group.rows]


def _row_order(row: TextRow) -> tuple[str, str, str, int]:
    """Return a sort key that does not depend on the order of the file, but for copies."""
    return (row.label, row.text, row.pair or "", row.number)


def _hash_key(row: TextRow, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{normalized_text_key(row)}".encode()).hexdigest()


_key = attrgetter("key")


def _total(groups: Groups) -> int:
    return sum(len(group.rows) for group in groups)


class Stratification(ABC):
    """Divides groups into parts. A part can fall short by less than the rows of one group."""

    @abstractmethod
    def min_train_texts(self, groups: Groups) -> int:
        """Return how many texts a training split needs to keep one of each label."""

    @abstractmethod
    def draw(self, groups: Groups, count: int) -> tuple[Groups, Groups] | None:
        """Return (drawn, remaining) groups, `count` rows of which are drawn.

        A text of each label remains; None if that is not possible.
        """

    @abstractmethod
    def subset(self, groups: Groups, count: int) -> Groups | None:
        """Return groups of `count` rows with a text of each label; None if that is not possible."""

    @abstractmethod
    def assign_folds(self, groups: Groups, n: int) -> list[int]:
        """Return the fold of each group, from 0 to `n` - 1."""


def choose_stratification(task: TaskType, rows: Sequence[TextRow]) -> Stratification:
    """Return the stratification of these rows and of parts of them."""
    match task:
        case "single_label":
            return LabelStratification({row.label: row.label for row in rows})
        case "multi_label":
            return LabelSetStratification(decode_label_set)
        case "regression":
            return ProportionalStratification(quantile_bins([row.label for row in rows]))
        case "several_targets":
            strata = strata_of_targets([row.label for row in rows])
            return LabelSetStratification(lambda label: strata[label])


class ProportionalStratification(Stratification):
    """Texts of a few kinds: those with one label, or with a number in one range."""

    def __init__(self, strata: Mapping[str, str]) -> None:
        self._strata = strata  # of the labels of rows

    def min_train_texts(self, groups: Groups) -> int:
        return len(self._divide(groups))

    def draw(self, groups: Groups, count: int) -> tuple[Groups, Groups] | None:
        strata = self._divide(groups)
        rows = {name: _total(members) for name, members in strata.items()}
        # The last text of each stratum remains.
        capacity = {name: rows[name] - len(members[-1].rows) for name, members in strata.items()}
        if sum(capacity.values()) < count:
            return None
        return _take(strata, apportion_rows(rows, capacity, count, {}))

    def subset(self, groups: Groups, count: int) -> Groups | None:
        strata = self._divide(groups)
        rows = {name: _total(members) for name, members in strata.items()}
        first = {name: len(members[0].rows) for name, members in strata.items()}
        if sum(first.values()) > count:
            return None
        return _take(strata, apportion_rows(rows, rows, count, first))[0]

    def assign_folds(self, groups: Groups, n: int) -> list[int]:
        # Counted across strata, so that all folds have about the same size.
        in_turn = [group for members in self._divide(groups).values() for group in members]
        folds = {group.key: i % n for i, group in enumerate(in_turn)}
        return [folds[group.key] for group in groups]

    def _divide(self, groups: Groups) -> dict[str, Groups]:
        """Return the texts of each stratum, which is the most frequent one of their rows.

        On a tie it is the first in alphabetical order.
        """
        strata: dict[str, Groups] = defaultdict(list)
        for group in groups:
            counts = Counter(self._strata[row.label] for row in group.rows)
            strata[min(counts, key=lambda name: (-counts[name], name))].append(group)
        return {name: strata[name] for name in sorted(strata)}


class LabelStratification(ProportionalStratification):
    """Texts of which copies may have different labels, so that a label may have no stratum."""

    def draw(self, groups: Groups, count: int) -> tuple[Groups, Groups] | None:
        drawn = super().draw(groups, count)
        if drawn is None or _labels(drawn[0]) <= _labels(drawn[1]):
            return drawn
        strata = self._divide(groups)
        keys: dict[str, str] = {}  # of the first text with each label that has no stratum
        for group in groups:
            for label in _labels([group]) - strata.keys():
                keys.setdefault(label, group.key)
        kept = set(keys.values())
        again = super().draw([group for group in groups if group.key not in kept], count)
        if again is None:
            return drawn
        remaining = [group for group in groups if group.key in kept] + again[1]
        return again[0], sorted(remaining, key=_key)


def _labels(groups: Groups) -> set[str]:
    return {row.label for group in groups for row in group.rows}


def apportion_rows(
    weights: Mapping[str, int], capacity: Mapping[str, int], size: int, minimum: Mapping[str, int]
) -> dict[str, int]:
    """Return the number of rows to take of each stratum, in proportion to `weights`.

    Each number is between `minimum` and `capacity`. Rows are assigned one at a time to the stratum
    with the largest weight / (2 assigned + 1): the Sainte-Laguë method.
    """
    quotas = {name: minimum.get(name, 0) for name in weights}
    queue = [
        (-weights[name] / (2 * assigned + 1), name)
        for name, assigned in quotas.items()
        if assigned < capacity[name]
    ]
    heapify(queue)
    for _ in range(size - sum(quotas.values())):
        if not queue:
            break
        name = queue[0][1]
        quotas[name] += 1
        if quotas[name] < capacity[name]:
            heapreplace(queue, (-weights[name] / (2 * quotas[name] + 1), name))
        else:
            heappop(queue)
    return quotas


def _take(strata: Mapping[str, Groups], quotas: Mapping[str, int]) -> tuple[Groups, Groups]:
    """Take groups of each stratum in order while all duplicates fit. Return (taken, remaining)."""
    taken: Groups = []
    remaining: Groups = []
    for name, members in strata.items():
        free = quotas[name]
        for group in members:
            fits = len(group.rows) <= free
            (taken if fits else remaining).append(group)
            free -= len(group.rows) * fits
    return sorted(taken, key=_key), sorted(remaining, key=_key)


# -- Numbers --------------------------------------------------------------------------------------

MAX_BINS = 10
MIN_ROWS_PER_BIN = 10


def quantile_bins(labels: Sequence[str]) -> dict[str, str]:
    """Return the bin of each number. Bins have about as many rows each; equal numbers share one."""
    bins = max(1, min(MAX_BINS, len(labels) // MIN_ROWS_PER_BIN))
    edges = np.unique(np.quantile([float(label) for label in labels], np.arange(1, bins) / bins))
    return {
        label: str(int(np.searchsorted(edges, float(label), side="right"))) for label in set(labels)
    }


# -- Sets of labels -------------------------------------------------------------------------------


NamesOf = Callable[[str], Sequence[str]]  # the labels to stratify by, of the label of a row


class LabelSetStratification(Stratification):
    """Texts with any number of labels each, divided by `assign_iteratively`."""

    def __init__(self, names_of: NamesOf) -> None:
        self._names_of = names_of

    def min_train_texts(self, groups: Groups) -> int:
        return max(1, len(_one_of_each_label(groups, self._names_of)))

    def draw(self, groups: Groups, count: int) -> tuple[Groups, Groups] | None:
        sizes = (count, _total(groups) - count)
        kept = _one_of_each_label(groups, self._names_of) or [0]
        if _total([groups[i] for i in kept]) > sizes[1]:
            return None
        parts = assign_iteratively(groups, sizes, dict.fromkeys(kept, 1), names_of=self._names_of)
        return _select(groups, parts, 0), _select(groups, parts, 1)

    def subset(self, groups: Groups, count: int) -> Groups | None:
        sizes = (count, _total(groups) - count)
        kept = _one_of_each_label(groups, self._names_of)
        if _total([groups[i] for i in kept]) > count:
            return None
        parts = assign_iteratively(groups, sizes, dict.fromkeys(kept, 0), names_of=self._names_of)
        return _select(groups, parts, 0)

    def assign_folds(self, groups: Groups, n: int) -> list[int]:
        total = _total(groups)
        sizes = [total * (i + 1) // n - total * i // n for i in range(n)]
        return assign_iteratively(groups, sizes, names_of=self._names_of)


def assign_iteratively(
    groups: Groups,
    sizes: Sequence[int],
    fixed: Mapping[int, int] | None = None,
    *,
    names_of: NamesOf = decode_label_set,
) -> list[int]:
    """Return the part of each group: iterative stratification (Sechidis et al. 2011).

    The rarest of the labels that are left is distributed first, to the parts that lack it most,
    since a frequent one can still be balanced later. Texts without labels fill the parts up.

    `sizes` are the rows of the parts; they add up to the rows of the groups. A group that fits in
    no part any more goes to the last one. `fixed` are parts of groups, chosen beforehand.
    """
    assignment = _Assignment(groups, sizes, names_of)
    for i, part in (fixed or {}).items():
        assignment.assign(i, part)
    with_label: dict[str, list[int]] = defaultdict(list)
    for i, counts in enumerate(assignment.counts):
        for name in counts:
            with_label[name].append(i)
    while (label := assignment.rarest_label()) is not None:
        assignment.distribute(with_label[label], assignment.lacking[label])
    assignment.distribute(range(len(groups)), assignment.room)
    return assignment.parts


class _Assignment:
    """Groups that are being assigned to parts."""

    def __init__(self, groups: Groups, sizes: Sequence[int], names_of: NamesOf) -> None:
        self.counts = _count_labels(groups, names_of)
        self.parts = [-1] * len(groups)  # -1: not yet assigned
        self.room = list(sizes)  # rows that a part still gets
        self._rows = [len(group.rows) for group in groups]
        self._left = Counter[str]()  # rows with each label, not yet assigned
        for counts in self.counts:
            self._left.update(counts)
        # Rows with a label that a part still lacks, times all rows: a whole number, so ties are
        # exact.
        self.lacking = {label: [n * size for size in sizes] for label, n in self._left.items()}
        self._total = sum(sizes)

    def assign(self, i: int, part: int) -> None:
        self.parts[i] = part
        self.room[part] -= self._rows[i]
        for label, n in self.counts[i].items():
            self._left[label] -= n
            self.lacking[label][part] -= n * self._total

    def distribute(self, indices: Iterable[int], need: Sequence[int]) -> None:
        """Assign groups one by one to the part with the largest need at that time."""
        for i in indices:
            if self.parts[i] < 0:
                fitting = [part for part, rows in enumerate(self.room) if rows >= self._rows[i]]
                last = [len(self.room) - 1]
                self.assign(i, max(fitting or last, key=lambda part: (need[part], self.room[part])))

    def rarest_label(self) -> str | None:
        """Return the label of the fewest rows that are left; None if none has any."""
        left = [(n, label) for label, n in self._left.items() if n]
        return min(left)[1] if left else None


def _one_of_each_label(groups: Groups, names_of: NamesOf) -> list[int]:
    """Return a group with each label, those of the rarest labels first."""
    counts = _count_labels(groups, names_of)
    totals = Counter[str]()
    first: dict[str, int] = {}
    for i, labels in enumerate(counts):
        totals.update(labels)
        for label in labels:
            first.setdefault(label, i)
    covered = set[str]()
    chosen = []
    for _, label in sorted((n, label) for label, n in totals.items()):
        if label not in covered:
            chosen.append(first[label])
            covered.update(counts[first[label]])
    return chosen


def _count_labels(groups: Groups, names_of: NamesOf) -> list[Counter[str]]:
    """Return for each group the number of rows with each label."""
    return [Counter(name for row in group.rows for name in names_of(row.label)) for group in groups]


def strata_of_targets(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what each label of several targets is stratified by: names, and bins of numbers."""
    decoded = {label: decode_targets(label) for label in labels}
    first = decode_targets(labels[0]) if labels else {}
    bins = {
        target: quantile_bins([str(decoded[label][target]) for label in labels])
        for target, value in first.items()
        if isinstance(value, float)
    }

    def names(target: str, value: str | float | tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(value, float):
            return (bins[target][str(value)],)
        return (value,) if isinstance(value, str) else value

    return {
        label: tuple(
            qualified_output_name(target, name)
            for target, value in values.items()
            for name in names(target, value)
        )
        for label, values in decoded.items()
    }


def _select(groups: Groups, parts: Sequence[int], part: int) -> Groups:
    return [group for group, own in zip(groups, parts, strict=True) if own == part]
