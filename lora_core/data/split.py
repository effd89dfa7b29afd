"""Parts that the data itself names: by a column, or by the splits of a hub data set."""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from lora_core.data.rows import Row
from lora_core.errors.data import MissingSplit, TooFewRows, UnknownSplit
from lora_core.specs.data import DataSpec, Split, count_of

NAMES = {
    "train": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
}

Parts = dict[Split, list[Row]]


def named(value: str) -> Split | None:
    """The part that a name stands for, in any case; None for other names."""
    return NAMES.get(value.strip().lower())


def by_column(file: str, rows: Iterable[Row]) -> Parts | None:
    """Rows by the value of their split column; None if there is no such column.

    Raises `UnknownSplit`.
    """
    parts: Parts = {}
    for row in rows:
        if row.split is None:
            return None
        part = named(row.split)
        if part is None:
            raise UnknownSplit(file=file, row=row.number, value=row.split)
        parts.setdefault(part, []).append(row)
    return parts


def with_train(file: str, parts: Parts) -> Parts:
    """The same parts. Raises `MissingSplit` if there is nothing to train on."""
    if Split.TRAIN not in parts:
        raise MissingSplit(file=file, split=Split.TRAIN.value)
    return parts


# MERGED lora_core.data.split
# Parts drawn by content: in whatever order the same texts come, they land in the same parts.
#
# A text stands where the sha256 of (seed, text) puts it, so nothing depends on row order, on the
# machine or on a random generator. Copies of one text, whatever their labels, stay together, so no
# split contains a text of another. Splits are stratified by label.

Size = int | float  # a count of texts, or a share of them


@dataclass(frozen=True)
class Twins:
    """All rows of one text."""

    key: str
    label: str  # the most frequent one; on a tie the first by name
    rows: tuple[Row, ...]


Groups = dict[str, list[Twins]]  # label -> its texts in the order of the hashes


def normalised(text: str) -> str:
    """What makes two texts the same: NFC, without white space around it."""
    return unicodedata.normalize("NFC", text).strip()


def leaked(parts: Mapping[Split, Sequence[Row]]) -> int:
    """Rows of validation and test whose text is in train as well."""
    train = {normalised(row.text) for row in parts[Split.TRAIN]}
    others = [row for part, rows in parts.items() if part is not Split.TRAIN for row in rows]
    return sum(normalised(row.text) in train for row in others)


def draw(rows: Sequence[Row], sizes: Mapping[Split, Size], seed: int) -> dict[Split, list[Row]]:
    """Divide rows into train and the parts of `sizes`, each in the order of the hashes.

    Test is drawn before validation and both before train. Train keeps at least one text of every
    label. A part can fall short by less than the number of copies of one text.

    Raises `TooFewRows`.
    """
    left = grouped(rows, seed)
    distinct = sum(map(len, left.values()))
    drawn = [part for part in (Split.TEST, Split.VALIDATION) if part in sizes]
    counts = {part: count_of(sizes[part], len(rows)) for part in drawn}
    parts: dict[Split, list[Row]] = {}
    for part, count in counts.items():
        last = {label: len(twins[-1].rows) for label, twins in left.items()}  # stays in train
        room = {label: n - last[label] for label, n in _sizes(left).items()}
        taken, left = _take(left, _quotas(_sizes(left), room, count, {}))
        parts[part] = _in_order(taken)
        if not parts[part] or sum(room.values()) < count:
            plan = [f"{n:,} for {name.value}" for name, n in counts.items()]
            plan.append(f"at least {len(left)} for train (one of each label)")
            raise TooFewRows(available=f"{distinct:,}", wanted=", ".join(plan))
    return {Split.TRAIN: _in_order(left), **parts}


def cap(rows: Sequence[Row], size: Size, of: int, seed: int) -> list[Row]:
    """`size` of the rows, labels in balance, at least one text of each, in the order of the hashes.

    A share is one of `of` rows. A smaller size gives a part of what a larger one gives, but for
    texts that stand there more than once. Raises `TooFewRows`.
    """
    count = count_of(size, of)
    rounding = 2 if isinstance(size, float) else 0  # two other parts may have been rounded up
    groups = grouped(rows, seed)
    first = {label: len(twins[0].rows) for label, twins in groups.items()}
    if count > len(rows) + rounding or count < sum(first.values()):
        least = f"{count:,} for train (at least {len(groups)}, one of each label)"
        distinct = sum(map(len, groups.values()))
        raise TooFewRows(available=f"{distinct:,}", wanted=least)
    taken, _ = _take(groups, _quotas(_sizes(groups), _sizes(groups), count, first))
    return _in_order(taken)


def grouped(rows: Sequence[Row], seed: int) -> Groups:
    """All copies of each text, by label, in the order of the hashes."""
    twins: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        twins[_key(row.text, seed)].append(row)
    groups: Groups = defaultdict(list)
    for key in sorted(twins):
        labels = Counter(row.label for row in twins[key])
        label = min(labels, key=lambda name: (-labels[name], name))
        # copies in an order of their own, not that of the file
        copies = tuple(sorted(twins[key], key=lambda row: (row.label, row.text, row.number)))
        groups[label].append(Twins(key, label, copies))
    return {label: groups[label] for label in sorted(groups)}


def _key(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{normalised(text)}".encode()).hexdigest()


def _sizes(groups: Groups) -> dict[str, int]:
    """Rows of each label."""
    return {label: sum(len(one.rows) for one in twins) for label, twins in groups.items()}


def _quotas(
    weights: Mapping[str, int], room: Mapping[str, int], size: int, least: Mapping[str, int]
) -> dict[str, int]:
    """Rows to take of each label, in proportion to `weights`, from `least` up to `room`.

    One at a time to the label with the largest weight / (2 taken + 1): the method of Sainte-Laguë.
    """
    quotas = {label: least.get(label, 0) for label in weights}
    queue = [
        (-weights[label] / (2 * taken + 1), label)
        for label, taken in quotas.items()
        if taken < room[label]
    ]
    heapify(queue)
    for _ in range(size - sum(quotas.values())):
        if not queue:
            break
        label = queue[0][1]
        quotas[label] += 1
        if quotas[label] < room[label]:
            heapreplace(queue, (-weights[label] / (2 * quotas[label] + 1), label))
        else:
            heappop(queue)
    return quotas


def _take(groups: Groups, quotas: Mapping[str, int]) -> tuple[Groups, Groups]:
    """What is taken of each label, in order, as long as all copies of a text fit; what is left."""
    taken: Groups = {}
    left: Groups = {}
    for label, twins in groups.items():
        free = quotas[label]
        taken[label], left[label] = [], []
        for one in twins:
            fits = len(one.rows) <= free
            (taken if fits else left)[label].append(one)
            free -= len(one.rows) * fits
    return taken, left


def _in_order(groups: Groups) -> list[Row]:
    """Rows of all labels, by hash."""
    every = sorted((one.key, one.rows) for twins in groups.values() for one in twins)
    return [row for _, rows in every for row in rows]


# MERGED lora_core.data.split
# Whether the parts of a description can be drawn at all, from what is known without the rows.


@dataclass(frozen=True)
class Known:
    """What there is to train on, before anything is drawn from it."""

    rows: int
    labels: int
    duplicates: int = 0  # rows whose text stands in an earlier row
    conflicting: int = 0  # texts that stand there with more than one label

    @property
    def least(self) -> int:
        """Texts that train keeps: one of each label, but a text counts for one label alone."""
        return 1 if self.conflicting else self.labels


def check_room(spec: DataSpec, drawn: Collection[Split], known: Known) -> None:
    """Refuse what `load` is sure to refuse. Raises `TooFewRows`.

    Without duplicates that is all it refuses for its size. With them the run sees more: copies of a
    text stay together, so a part may take fewer rows than it asks for.
    """
    rows, least = known.rows, known.least
    sizes = {Split.TEST: spec.test_size, Split.VALIDATION: spec.validation_size}
    counts = {part: count_of(size, rows) for part, size in sizes.items() if part in drawn}
    asked = sum(counts.values())
    train, rounding = least, 0
    if spec.train_size is not None:
        train = count_of(spec.train_size, rows)
        rounding = 2 if isinstance(spec.train_size, float) else 0  # as in `split.cap`
    if (
        train < least
        or asked + train > rows + known.duplicates + rounding
        or asked + least > rows + known.duplicates
        or max(counts.values(), default=0) + least > rows
        or len(counts) + least > rows - known.duplicates
    ):
        plan = [f"{count:,} for {part.value}" for part, count in counts.items()]
        plan.append(f"{max(train, least):,} for train (at least one of each label)")
        available = f"{rows - known.duplicates:,}"
        raise TooFewRows(available=available, wanted=", ".join(plan))
