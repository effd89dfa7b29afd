"""Train, validation and test splits: given by the data, or drawn by content hash.

Splits are drawn by content: the same texts end up in the same splits in whatever order they come.
The sha256 of (seed, text) determines the position of a text, so nothing depends on row order, on
the machine or on a random generator. Duplicates of a text stay together, whatever their labels, so
no text occurs in two drawn splits. Splits are stratified by label. Cross-validation folds are drawn
the same way, so that no text is scored by a model that was trained on a duplicate of it.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_core.data.chat import describe_prompt_format
from lora_core.data.label_readers import (
    SINGLE_LABEL,
    LabelFormat,
    decode_label_names,
    describe_column_location,
    normalize_label_name,
    without_invisible_characters,
)
from lora_core.data.rows import TextRow
from lora_core.data.stratify import (
    choose_stratification,
    group_rows_by_text,
    normalized_text_key,
    ungroup,
)
from lora_core.errors.data import (
    AllLabelSetsEmpty,
    ConstantLabelSets,
    ConstantNumbers,
    InvalidSplitValue,
    LabelWithoutPositives,
    MissingSplit,
    SingleClass,
    TooFewRows,
    UnseenLabel,
    format_row_numbers,
)
from lora_core.events import NoteLogged
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import DataSpec, Split, resolve_split_size, split_from_name
from lora_core.specs.encoded_labels import (
    NUMBER,
    decode_label_set,
    extract_target_label,
    qualified_output_name,
)
from lora_core.specs.method import NUM_FOLDS
from lora_core.specs.task import TaskType
from lora_core.specs.text_input import TextInput, text_or_pair
from lora_core.tasks.targets import Target, infer_task_type, target_to_index_label


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
        return text_or_pair(self.text, self.pair)

    @property
    def characters(self) -> int:
        """The length of the text, or of both texts of a pair."""
        return len(self.text) + len(self.pair or "")


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

    def examples_of(self, split: Split) -> tuple[Example, ...]:
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
        examples = splits.examples_of(split)
        yield str(len(examples))
        for example in examples:
            yield example.text
            if example.pair is not None:
                yield example.pair
            yield str(example.label)


# -- Given splits ---------------------------------------------------------------------------------

RowsBySplit = dict[Split, list[TextRow]]


def group_rows_by_split(file: str, rows: Iterable[TextRow]) -> RowsBySplit | None:
    """Group rows by the value of their split column; None if there is no such column.

    Raises `InvalidSplitValue`.
    """
    splits: RowsBySplit = {}
    for row in rows:
        if row.split is None:
            return None
        split = split_from_name(row.split)
        if split is None:
            raise InvalidSplitValue(file=file, row=row.number, value=row.split)
        splits.setdefault(split, []).append(row)
    return splits


def require_train_split(file: str, splits: RowsBySplit) -> RowsBySplit:
    """Return the splits unchanged. Raises `MissingSplit` if there is no train split."""
    if Split.TRAIN not in splits:
        raise MissingSplit(file=file, split=Split.TRAIN.value)
    return splits


# -- Splits drawn by content hash ---------------------------------------------------------------

SplitSize = int | float  # a count of texts, or a share of them
_KEPT: Mapping[TaskType, str] = {  # what train keeps at least
    "single_label": "one per label",
    "multi_label": "one with each label",
    "regression": "one per range of numbers",
    "several_targets": "one per label and range of numbers of each target",
}


def count_leaked(splits: Mapping[Split, Sequence[TextRow]]) -> int:
    """Return the number of validation and test rows whose text is also in train."""
    train = {normalized_text_key(row) for row in splits[Split.TRAIN]}
    held_out = [row for split, rows in splits.items() if split is not Split.TRAIN for row in rows]
    return sum(normalized_text_key(row) in train for row in held_out)


def notes_on_prompt_format_and_leaks(splits: Splits) -> Iterator[NoteLogged]:
    """Yield what a run says about its data: the format of its prompts, and texts that leaked."""
    if splits.prompt_format is not None:
        text = describe_prompt_format(splits.prompt_format)
        yield NoteLogged(code="prompt_format", message=text)
    if splits.leaked:
        text = "1 validation or test text also occurs in the training split."
        if splits.leaked > 1:
            text = f"{splits.leaked:,} validation or test texts also occur in the training split."
        yield NoteLogged(level="warning", code="leaked", message=text)


def draw_splits(
    rows: Sequence[TextRow],
    sizes: Mapping[Split, SplitSize],
    seed: int,
    task: TaskType = "single_label",
) -> dict[Split, list[TextRow]]:
    """Split rows into train and the splits of `sizes`, each in hash order.

    Test is drawn before validation and both before train. Train keeps at least one text of every
    label. A split can fall short by less than the number of duplicates of one text.

    Raises `TooFewRows`.
    """
    strata = choose_stratification(task, rows)
    groups = remaining = group_rows_by_text(rows, seed)
    drawn = [split for split in (Split.TEST, Split.VALIDATION) if split in sizes]
    counts = {split: resolve_split_size(sizes[split], len(rows)) for split in drawn}
    splits: dict[Split, list[TextRow]] = {}
    for split, count in counts.items():
        selected, rest = strata.draw(remaining, count) or ([], [])
        if not selected:
            plan = [f"{n:,} for {name.value}" for name, n in counts.items()]
            plan.append(f"at least {strata.min_train_texts(remaining)} for train ({_KEPT[task]})")
            raise TooFewRows(available=f"{len(groups):,}", wanted=", ".join(plan))
        splits[split], remaining = ungroup(selected), rest
    return {Split.TRAIN: ungroup(remaining), **splits}


def stratified_subset(
    rows: Sequence[TextRow], size: SplitSize, of: int, seed: int, task: TaskType = "single_label"
) -> list[TextRow]:
    """Return `size` of the rows, stratified, with at least one text of each label, in hash order.

    A fraction is a share of `of` rows. Of a single-label task, a smaller size returns a subset of
    what a larger one returns, except for duplicated texts. Raises `TooFewRows`.
    """
    count = resolve_split_size(size, of)
    rounding = 2 if isinstance(size, float) else 0  # two other splits may have been rounded up
    strata, groups = choose_stratification(task, rows), group_rows_by_text(rows, seed)
    selected = None
    if count <= len(rows) + rounding:
        selected = strata.subset(groups, min(count, len(rows)))
    if selected is None:
        wanted = f"{count:,} for train (at least {strata.min_train_texts(groups)}, {_KEPT[task]})"
        raise TooFewRows(available=f"{len(groups):,}", wanted=wanted)
    return ungroup(selected)


# -- Feasibility of the requested sizes ----------------------------------------------------------


@dataclass(frozen=True)
class DatasetCounts:
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


def check_split_sizes(spec: DataSpec, drawn: Collection[Split], dataset: DatasetCounts) -> None:
    """Refuse sizes that `load_splits` is certain to refuse. Raises `TooFewRows`.

    Without duplicates, that is all that it refuses because of sizes. With duplicates, only the run
    can tell: duplicates stay together, so a split may get fewer rows than requested.
    """
    rows, minimum = dataset.rows, dataset.min_train_rows
    sizes = {Split.TEST: spec.test_size, Split.VALIDATION: spec.validation_size}
    counts = {
        split: resolve_split_size(size, rows) for split, size in sizes.items() if split in drawn
    }
    requested = sum(counts.values())
    train, rounding = minimum, 0
    if spec.train_size is not None:
        train = resolve_split_size(spec.train_size, rows)
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


# -- Folds for cross-validation ------------------------------------------------------------------


def assign_folds(examples: Sequence[Example], seed: int) -> NDArray[np.int64]:
    """Return the fold of each example, from 0 to `NUM_FOLDS` - 1.

    A different seed assigns the folds anew.
    """
    return assign_folds_of_rows(*rows_and_task_for_stratification(examples), seed)


def assign_folds_of_rows(rows: Sequence[TextRow], task: TaskType, seed: int) -> NDArray[np.int64]:
    """Return the fold of each row, as `assign_folds` does. The rows are numbered from 0."""
    groups = group_rows_by_text(rows, seed)
    folds = np.empty(len(rows), dtype=np.int64)
    for group, fold in zip(
        groups, choose_stratification(task, rows).assign_folds(groups, NUM_FOLDS), strict=True
    ):
        folds[[row.number for row in group.rows]] = fold
    return folds


def rows_and_task_for_stratification(examples: Sequence[Example]) -> tuple[list[TextRow], TaskType]:
    """Return examples as rows, numbered from 0, to stratify them; and the type of their task."""
    rows = [
        TextRow(i, example.text, target_to_index_label(example.label), pair=example.pair)
        for i, example in enumerate(examples)
    ]
    return rows, infer_task_type(examples[0].label) if examples else "single_label"


# -- Label names, in an order that does not depend on the order of the data -----------------------

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?", re.ASCII)


def sort_label_names(labels: Collection[str], *, ordered: bool = False) -> tuple[str, ...]:
    """Return the distinct labels, sorted by value if all are integers, else by name.

    If they are `ordered`, also decimal numbers such as 4.5 are sorted by value.
    """
    distinct = set(labels)
    if all(_INTEGER.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    if ordered and are_labels_numeric(distinct):
        return tuple(sorted(distinct, key=lambda label: (float(label), label)))
    return tuple(sorted(distinct))


def are_labels_numeric(labels: Collection[str]) -> bool:
    """Return whether all labels are whole or decimal numbers."""
    return all(_DECIMAL.fullmatch(label) for label in labels)


def find_label_spelling_variants(labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of labels that differ in case, white space or invisible characters only, such
    as Lob and lob, or that are the same whole number, such as 1 and 1.0."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        visible = without_invisible_characters(label)
        spellings[_whole_number(visible) or " ".join(visible.casefold().split())].append(label)
    return tuple(tuple(group) for group in spellings.values() if len(group) > 1)


def _whole_number(label: str) -> str | None:
    """Return a whole number without its decimals. 1.5 and 1.50 may be sections, not numbers."""
    whole, _, decimals = label.partition(".")
    return None if decimals.strip("0") or not _DECIMAL.fullmatch(label) else str(int(whole))


def collect_and_check_label_names(
    file: str, splits: Mapping[Split, Sequence[TextRow]], label_format: LabelFormat = SINGLE_LABEL
) -> tuple[str, ...]:
    """Return the label names of the train split. A regression has none, but of several targets
    each number has one output.

    Raises `SingleClass`, `AllLabelSetsEmpty`, `ConstantLabelSets` or `ConstantNumbers` if there is
    nothing to predict, and `UnseenLabel` or `LabelWithoutPositives` if train lacks a label.
    """
    if label_format.targets:
        return tuple(
            qualified_output_name(target.name, name)
            for target in label_format.targets
            for name in collect_and_check_label_names(
                describe_column_location(file, target.columns),
                {
                    split: project_rows_to_target(rows, target.name)
                    for split, rows in splits.items()
                },
                target.label_format,
            )
            or (NUMBER,)
        )
    of_train = {row.label for row in splits[Split.TRAIN]}
    if label_format.task == "regression":
        if len(of_train) == 1:
            raise ConstantNumbers(file=file, value=of_train.pop())
        return ()
    if label_format.task == "multi_label":
        _check_label_sets(file, of_train)
    elif len(of_all := {row.label for rows in splits.values() for row in rows}) == 1:
        raise SingleClass(file=file, label=of_all.pop())
    task = label_format.task
    seen = {name for label in of_train for name in decode_label_names(label, task)}
    for split, rows in splits.items():
        unseen = [
            (name, row.number)
            for row in rows
            for name in decode_label_names(row.label, task)
            if name not in seen
        ]
        if unseen:
            label = unseen[0][0]
            numbers = [number for name, number in unseen if name == label]
            raise UnseenLabel(label=label, split=split.value, rows=format_row_numbers(numbers))
    for column in label_format.columns or ():
        if normalize_label_name(column) not in seen:
            raise LabelWithoutPositives(file=file, column=column)
    return sort_label_names(seen, ordered=label_format.ordered)


def project_rows_to_target(rows: Sequence[TextRow], target: str) -> list[TextRow]:
    """Return rows with the labels of one of their targets."""
    return [
        TextRow(row.number, row.text, extract_target_label(row.label, target), row.split, row.pair)
        for row in rows
    ]


def _check_label_sets(file: str, label_sets: Collection[str]) -> None:
    """Check the sets of labels in train. Raises `AllLabelSetsEmpty`, `ConstantLabelSets`."""
    if len(label_sets) == 1:
        (names,) = map(decode_label_set, label_sets)
        if names:
            raise ConstantLabelSets(file=file, labels=", ".join(map(repr, names)))
        raise AllLabelSetsEmpty(file=file)
