"""Train, validation and test splits: given by the data, or drawn by content hash.

Splits are drawn by content: the same texts end up in the same splits in whatever order they come.
The sha256 of (seed, text) determines the position of a text, so nothing depends on row order, on
the machine or on a random generator. Duplicates of a text stay together, whatever their labels, so
no text occurs in two drawn splits. Splits are stratified by label. Cross-validation folds are drawn
the same way, so that no text is scored by a model that was trained on a duplicate of it.
"""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

import numpy as np
from numpy.typing import NDArray

from lora_core.data.rows import MAX_ROWS_IN_ERROR, TextRow
from lora_core.data.targets import Target
from lora_core.errors.data import (
    InvalidSplitValue,
    MissingSplit,
    SingleClass,
    TooFewRows,
    UnseenLabel,
)
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import DataSpec, Split, parse_split_name, resolve_count
from lora_core.specs.method import NUM_FOLDS
from lora_core.specs.text_input import TextInput, text_input


@dataclass(frozen=True, slots=True)
class Example:
    """A text, or a pair, and its label; indices refer to `Splits.labels`."""

    row: int  # row in the file; 1 is the first data row, without the header
    text: str
    label: Target
    pair: str | None = None  # the second text of a pair

    @property
    def input(self) -> TextInput:
        """What a model reads: the text, or the pair."""
        return text_input(self.text, self.pair)

    @property
    def characters(self) -> int:
        """The length of the text, or of both texts of a pair."""
        return len(self.text) + len(self.pair or "")


def label_indices(examples: Iterable[Example]) -> NDArray[np.int64]:
    """Return the index of the label (texts,) of each text of a single-label task."""
    return np.array([example.label for example in examples], dtype=np.int64)


@dataclass(frozen=True)
class Splits:
    """The three splits and the names of the labels, which a regression does not have.

    `digest` identifies the data: it covers label names, texts, labels and their order, split by
    split.
    """

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    # Validation and test texts that are also in train. Only given splits can leak.
    leaked: int = 0
    drawn: frozenset[Split] = frozenset()  # splits that the data does not define
    prompt_format: PromptFormat | None = None  # of a training file in chat form
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))

    @property
    def are_pairs(self) -> bool:
        """Whether each example is a pair of texts."""
        return bool(self.train) and self.train[0].pair is not None

    def examples(self, split: Split) -> tuple[Example, ...]:
        """Return the examples of a split."""
        by_split = {
            Split.TRAIN: self.train,
            Split.VALIDATION: self.validation,
            Split.TEST: self.test,
        }
        return by_split[split]


def _digest(splits: Splits) -> str:
    digest = hashlib.sha256()
    for line in _digest_content(splits):
        encoded = line.encode()
        # length prefix, so that concatenated texts differ
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _digest_content(splits: Splits) -> Iterable[str]:
    yield str(len(splits.labels))
    yield from splits.labels
    for split in Split:
        examples = splits.examples(split)
        yield str(len(examples))
        for example in examples:
            yield example.text
            if example.pair is not None:
                yield example.pair
            yield str(example.label)


# -- Given splits ---------------------------------------------------------------------------------

RowsBySplit = dict[Split, list[TextRow]]


def split_by_column(file: str, rows: Iterable[TextRow]) -> RowsBySplit | None:
    """Group rows by the value of their split column; None if there is no such column.

    Raises `InvalidSplitValue`.
    """
    splits: RowsBySplit = {}
    for row in rows:
        if row.split is None:
            return None
        split = parse_split_name(row.split)
        if split is None:
            raise InvalidSplitValue(file=file, row=row.number, value=row.split)
        splits.setdefault(split, []).append(row)
    return splits


def require_train(file: str, splits: RowsBySplit) -> RowsBySplit:
    """Return the splits unchanged. Raises `MissingSplit` if there is no train split."""
    if Split.TRAIN not in splits:
        raise MissingSplit(file=file, split=Split.TRAIN.value)
    return splits


# -- Splits drawn by content hash ---------------------------------------------------------------

SplitSize = int | float  # a count of texts, or a share of them


@dataclass(frozen=True)
class DuplicateGroup:
    """All rows with the same text, or the same pair of texts."""

    key: str
    label: str  # the most frequent label; on a tie the first in alphabetical order
    rows: tuple[TextRow, ...]


GroupsByLabel = dict[str, list[DuplicateGroup]]  # label -> its texts in hash order


def normalize_text(text: str) -> str:
    """Return the form in which texts are compared: NFC, without surrounding white space."""
    return unicodedata.normalize("NFC", text).strip()


def comparison_key(row: TextRow) -> str:
    """Return what rows are compared by: the normalized text, or both texts of a pair.

    No text contains the NUL that joins them.
    """
    text = normalize_text(row.text)
    return text if row.pair is None else f"{text}\0{normalize_text(row.pair)}"


def count_leaked(splits: Mapping[Split, Sequence[TextRow]]) -> int:
    """Return the number of validation and test rows whose text is also in train."""
    train = {comparison_key(row) for row in splits[Split.TRAIN]}
    held_out = [row for split, rows in splits.items() if split is not Split.TRAIN for row in rows]
    return sum(comparison_key(row) in train for row in held_out)


def describe_leaked(count: int) -> str:
    """Return the warning for `count_leaked` texts, at least 1."""
    if count == 1:
        return "1 validation or test text also occurs in the training split."
    return f"{count:,} validation or test texts also occur in the training split."


def draw_splits(
    rows: Sequence[TextRow], sizes: Mapping[Split, SplitSize], seed: int
) -> dict[Split, list[TextRow]]:
    """Split rows into train and the splits of `sizes`, each in hash order.

    Test is drawn before validation and both before train. Train keeps at least one text of every
    label. A split can fall short by less than the number of duplicates of one text.

    Raises `TooFewRows`.
    """
    remaining = group_by_label(rows, seed)
    distinct = sum(map(len, remaining.values()))
    drawn = [split for split in (Split.TEST, Split.VALIDATION) if split in sizes]
    counts = {split: resolve_count(sizes[split], len(rows)) for split in drawn}
    splits: dict[Split, list[TextRow]] = {}
    for split, count in counts.items():
        # The last text of each label stays in train.
        reserved = {label: len(duplicates[-1].rows) for label, duplicates in remaining.items()}
        capacity = {label: n - reserved[label] for label, n in _count_rows(remaining).items()}
        selected, remaining = _take(
            remaining, _allocate(_count_rows(remaining), capacity, count, {})
        )
        splits[split] = _rows_in_hash_order(selected)
        if not splits[split] or sum(capacity.values()) < count:
            plan = [f"{n:,} for {name.value}" for name, n in counts.items()]
            plan.append(f"at least {len(remaining)} for train (one per label)")
            raise TooFewRows(available=f"{distinct:,}", wanted=", ".join(plan))
    return {Split.TRAIN: _rows_in_hash_order(remaining), **splits}


def stratified_subset(
    rows: Sequence[TextRow], size: SplitSize, of: int, seed: int
) -> list[TextRow]:
    """Return `size` of the rows, stratified, with at least one text of each label, in hash order.

    A fraction is a share of `of` rows. A smaller size returns a subset of what a larger one
    returns, except for duplicated texts. Raises `TooFewRows`.
    """
    count = resolve_count(size, of)
    rounding = 2 if isinstance(size, float) else 0  # two other splits may have been rounded up
    groups = group_by_label(rows, seed)
    first = {label: len(duplicates[0].rows) for label, duplicates in groups.items()}
    if count > len(rows) + rounding or count < sum(first.values()):
        minimum = f"{count:,} for train (at least {len(groups)}, one per label)"
        distinct = sum(map(len, groups.values()))
        raise TooFewRows(available=f"{distinct:,}", wanted=minimum)
    selected, _ = _take(groups, _allocate(_count_rows(groups), _count_rows(groups), count, first))
    return _rows_in_hash_order(selected)


def group_by_label(rows: Sequence[TextRow], seed: int) -> GroupsByLabel:
    """Group the duplicates of each text, by label, in hash order."""
    duplicates: dict[str, list[TextRow]] = defaultdict(list)
    for row in rows:
        duplicates[_hash_key(row, seed)].append(row)
    groups: GroupsByLabel = defaultdict(list)
    for key in sorted(duplicates):
        labels = Counter(row.label for row in duplicates[key])
        label = min(labels, key=lambda name: (-labels[name], name))
        # an order that does not depend on the file
        ordered = tuple(
            sorted(
                duplicates[key], key=lambda row: (row.label, row.text, row.pair or "", row.number)
            )
        )
        groups[label].append(DuplicateGroup(key, label, ordered))
    return {label: groups[label] for label in sorted(groups)}


def _hash_key(row: TextRow, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{comparison_key(row)}".encode()).hexdigest()


def _count_rows(groups: GroupsByLabel) -> dict[str, int]:
    """Return the number of rows of each label."""
    return {
        label: sum(len(group.rows) for group in duplicates) for label, duplicates in groups.items()
    }


def _allocate(
    weights: Mapping[str, int], capacity: Mapping[str, int], size: int, minimum: Mapping[str, int]
) -> dict[str, int]:
    """Return the number of rows to take of each label, in proportion to `weights`.

    Each number is between `minimum` and `capacity`. Rows are assigned one at a time to the label
    with the largest weight / (2 assigned + 1): the Sainte-Laguë method.
    """
    quotas = {label: minimum.get(label, 0) for label in weights}
    queue = [
        (-weights[label] / (2 * assigned + 1), label)
        for label, assigned in quotas.items()
        if assigned < capacity[label]
    ]
    heapify(queue)
    for _ in range(size - sum(quotas.values())):
        if not queue:
            break
        label = queue[0][1]
        quotas[label] += 1
        if quotas[label] < capacity[label]:
            heapreplace(queue, (-weights[label] / (2 * quotas[label] + 1), label))
        else:
            heappop(queue)
    return quotas


def _take(groups: GroupsByLabel, quotas: Mapping[str, int]) -> tuple[GroupsByLabel, GroupsByLabel]:
    """Take groups of each label in order while all duplicates fit. Return (taken, remaining)."""
    selected: GroupsByLabel = {}
    remaining: GroupsByLabel = {}
    for label, duplicates in groups.items():
        free = quotas[label]
        selected[label], remaining[label] = [], []
        for group in duplicates:
            fits = len(group.rows) <= free
            (selected if fits else remaining)[label].append(group)
            free -= len(group.rows) * fits
    return selected, remaining


def _rows_in_hash_order(groups: GroupsByLabel) -> list[TextRow]:
    """Return the rows of all labels in hash order."""
    keyed_rows = sorted(
        (group.key, group.rows) for duplicates in groups.values() for group in duplicates
    )
    return [row for _, rows in keyed_rows for row in rows]


# -- Feasibility of the requested sizes ----------------------------------------------------------


@dataclass(frozen=True)
class DatasetSize:
    """The size of a dataset before anything is drawn from it."""

    rows: int
    labels: int
    duplicates: int = 0  # rows whose text also occurs in an earlier row
    conflicting_duplicates: int = 0  # texts that occur with more than one label

    @property
    def min_train_rows(self) -> int:
        """The texts that train keeps, one per label.

        A text with several labels counts for one of them.
        """
        return 1 if self.conflicting_duplicates else self.labels


def check_split_sizes(spec: DataSpec, drawn: Collection[Split], dataset: DatasetSize) -> None:
    """Refuse sizes that `load_splits` is certain to refuse. Raises `TooFewRows`.

    Without duplicates, that is all that it refuses because of sizes. With duplicates, only the run
    can tell: duplicates stay together, so a split may get fewer rows than requested.
    """
    rows, minimum = dataset.rows, dataset.min_train_rows
    sizes = {Split.TEST: spec.test_size, Split.VALIDATION: spec.validation_size}
    counts = {split: resolve_count(size, rows) for split, size in sizes.items() if split in drawn}
    requested = sum(counts.values())
    train, rounding = minimum, 0
    if spec.train_size is not None:
        train = resolve_count(spec.train_size, rows)
        rounding = 2 if isinstance(spec.train_size, float) else 0  # as in `stratified_subset`
    if (
        train < minimum
        or requested + train > rows + dataset.duplicates + rounding
        or requested + minimum > rows + dataset.duplicates
        or max(counts.values(), default=0) + minimum > rows
        or len(counts) + minimum > rows - dataset.duplicates
    ):
        plan = [f"{count:,} for {split.value}" for split, count in counts.items()]
        plan.append(f"{max(train, minimum):,} for train (at least one per label)")
        available = f"{rows - dataset.duplicates:,}"
        raise TooFewRows(available=available, wanted=", ".join(plan))


def indexed_rows(examples: Sequence[Example]) -> list[TextRow]:
    """Return the examples as rows, to be grouped and drawn like rows; numbered from 0."""
    return [
        TextRow(index, each.text, str(each.label), pair=each.pair)
        for index, each in enumerate(examples)
    ]


# -- Folds for cross-validation ------------------------------------------------------------------


def assign_folds(examples: Sequence[Example], seed: int) -> NDArray[np.int64]:
    """Return the fold of each example, from 0 to `NUM_FOLDS` - 1.

    A different seed assigns the folds anew.
    """
    rows = indexed_rows(examples)
    folds = np.empty(len(examples), dtype=np.int64)
    # The counter continues across labels, so that all folds have about the same size.
    counter = itertools.count()
    for texts in group_by_label(rows, seed).values():
        for group in texts:
            fold = next(counter) % NUM_FOLDS
            for row in group.rows:
                folds[row.number] = fold
    return folds


# -- Label names, in an order that does not depend on the order of the data -----------------------

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def label_names(labels: Collection[str]) -> tuple[str, ...]:
    """Return the distinct labels, sorted by value if all are integers, else by name."""
    distinct = set(labels)
    if all(_INTEGER.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def similar_labels(labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of labels that differ in case or white space only, such as Lob and lob."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[" ".join(label.casefold().split())].append(label)
    return tuple(tuple(group) for group in spellings.values() if len(group) > 1)


def validated_labels(file: str, splits: Mapping[Split, Sequence[TextRow]]) -> tuple[str, ...]:
    """Return the label names of the train split.

    Raises `SingleClass`, and `UnseenLabel` if another split has a label that train does not have.
    """
    labels = {row.label for rows in splits.values() for row in rows}
    if len(labels) == 1:
        raise SingleClass(file=file, label=labels.pop())
    seen = {row.label for row in splits[Split.TRAIN]}
    for split, rows in splits.items():
        if unseen := [row for row in rows if row.label not in seen]:
            label = unseen[0].label
            numbers = [str(row.number) for row in unseen if row.label == label]
            raise UnseenLabel(
                label=label, split=split.value, rows=", ".join(numbers[:MAX_ROWS_IN_ERROR])
            )
    return label_names(seen)
