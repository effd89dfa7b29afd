"""Data checks of labels: balance, spelling, coverage of the splits, sets of labels, numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from lora_core.data.data_report import (
    MAX_EXAMPLES,
    ClassBalance,
    Finding,
    HistogramBin,
    LabelPairCount,
    LabelRowCounts,
    LabelSetCount,
    LabelSetStatistics,
    RegressionNumberStatistics,
    Severity,
    TargetStatistics,
    assigned_split,
    format_count,
    format_percent,
    make_finding_example,
    shorten_name_list,
)
from lora_core.data.label_readers import LabelFormat, decode_label_names
from lora_core.data.more_labels_estimate import ACCURACY_ERRORS, MIN_TEXTS
from lora_core.data.rows import FORMULA_ERRORS, TextRow
from lora_core.data.split import (
    are_labels_numeric,
    find_label_spelling_variants,
    project_rows_to_target,
)
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import decode_label_set, unqualified_outputs_of_target
from lora_core.specs.task import TaskType

DOMINANT_SHARE = 0.8  # share of one label from which accuracy is uninformative
MIN_ROWS_PER_LABEL = 10  # with fewer, a label can hardly be learned or evaluated


@dataclass(frozen=True)
class LabelReport:
    """What is known about the labels. Without labels all of it is empty."""

    findings: tuple[Finding, ...] = ()
    balance: ClassBalance | None = None
    label_sets: LabelSetStatistics | None = None
    numbers: RegressionNumberStatistics | None = None
    targets: Mapping[str, TargetStatistics] = field(default_factory=dict)


def build_label_report(
    rows: Sequence[TextRow], names: Sequence[str], label_format: LabelFormat
) -> LabelReport:
    """Return the report of the labels of these rows. `names` is empty if they have none.

    Of several targets each has a report, and its findings name it.
    """
    if label_format.targets and names:
        return _check_targets(rows, names, label_format)
    if label_format.task == "regression":
        if not rows[0].label:
            return LabelReport()
        numbers = np.array([float(row.label) for row in rows])
        number_findings = tuple(_check_numbers(rows, numbers))
        return LabelReport(number_findings, numbers=measure_numbers(numbers))
    if not names:
        return LabelReport()
    task = label_format.task
    balance = measure_balance(rows, names, task)
    findings = list(_check_classes(balance, rows, task))
    if label_format.ordered:
        findings += _alphabetical_ranks(names)
    if task == "single_label":
        return LabelReport(tuple(findings), balance)
    label_sets = measure_label_sets(rows)
    findings += _check_label_sets(label_sets, balance, rows)
    return LabelReport(tuple(findings), balance, label_sets)


def _check_targets(
    rows: Sequence[TextRow], names: Sequence[str], label_format: LabelFormat
) -> LabelReport:
    findings: list[Finding] = []
    targets = {}
    for target in label_format.targets:
        report = build_label_report(
            project_rows_to_target(rows, target.name),
            unqualified_outputs_of_target(target.name, names),
            target.label_format,
        )
        targets[target.name] = TargetStatistics(
            balance=report.balance, label_sets=report.label_sets, numbers=report.numbers
        )
        findings += [
            each.model_copy(update={"message": f"{target.name}: {each.message}"})
            for each in report.findings
            if each.code != "few_rows"  # the same for all targets
        ]
    return LabelReport((*_few_rows(rows, "several_targets"), *findings), targets=targets)


# -- Balance --------------------------------------------------------------------------------------


def measure_balance(
    rows: Sequence[TextRow], labels: Sequence[str], task: TaskType = "single_label"
) -> ClassBalance:
    """Return the rows per label, in total and in each split that the file defines."""
    named = [
        (name, assigned_split(row)) for row in rows for name in decode_label_names(row.label, task)
    ]
    counts = Counter(name for name, _ in named)
    splits = Counter(named)
    present = [split for split in Split if any((label, split) in splits for label in labels)]
    if task == "multi_label":
        ((label_set, most),) = Counter(row.label for row in rows).most_common(1)
        majority = ", ".join(decode_label_set(label_set)) or "no label"
    else:
        majority = max(labels, key=lambda label: counts[label])
        most = counts[majority]
    return ClassBalance(
        labels={
            label: LabelRowCounts(
                count=counts[label],
                share=counts[label] / len(rows),
                splits={split: splits[label, split] for split in present},
            )
            for label in labels
        },
        majority=majority,
        baseline=most / len(rows),
    )


def _check_classes(
    balance: ClassBalance, rows: Sequence[TextRow], task: TaskType = "single_label"
) -> Iterator[Finding]:
    """Yield `few_rows`, `similar_labels`, `formula_errors`, `combined_labels`, `labels_missing`,
    `rare_labels`, `imbalanced`."""
    yield from _few_rows(rows, task)
    yield from _similar_labels(balance, rows, task)
    yield from _formula_errors(balance)
    if task == "single_label":
        yield from _combined_labels(balance)
    yield from _missing_labels(balance)
    rare = [
        (label, share.count)
        for label, share in balance.labels.items()
        if share.count < MIN_ROWS_PER_LABEL
    ]
    if rare:
        names = shorten_name_list([f"{label} ({count})" for label, count in rare])
        yield Finding(
            code="rare_labels",
            level=Severity.WARNING,
            count=len(rare),
            message=f"{format_count(len(rare), 'label')} with fewer than {MIN_ROWS_PER_LABEL} "
            f"rows: {names}.",
            advice="Collect more texts for them or merge them with other labels: with so few rows "
            "they are hardly learned, and their metrics are mostly chance.",
        )
    if balance.baseline >= DOMINANT_SHARE:
        metrics = "macro F1" if task == "multi_label" else "macro F1 or balanced accuracy"
        yield Finding(
            code="imbalanced",
            level=Severity.WARNING,
            count=round(balance.baseline * len(rows)),
            message=f"Always predicting {shorten_name_list([balance.majority])} would be correct "
            f"for {format_percent(balance.baseline)} of the rows.",
            advice=f"Compare models by {metrics} instead of accuracy, and try "
            "balanced class weights (task.class_weights).",
        )


def _few_rows(rows: Sequence[TextRow], task: TaskType) -> Iterator[Finding]:
    if len(rows) >= MIN_TEXTS:
        return
    holdout_error, cv_error = next(
        (errors for texts, errors in reversed(ACCURACY_ERRORS.items()) if len(rows) >= texts),
        next(iter(ACCURACY_ERRORS.values())),
    )
    imprecise = "Metrics measured on a tenth of them are imprecise."
    advice = "Expect a first draft, and label more texts: each doubling usually helps."
    if task == "single_label":
        imprecise = (
            f"Accuracy measured on a tenth of them is off by about {holdout_error} points on "
            f"average, cross-validated accuracy by {cv_error}."
        )
        advice = (
            "Expect a first draft, compare methods by cross-validation, and label more texts: "
            "each doubling usually gains several points."
        )
    yield Finding(
        code="few_rows",
        level=Severity.WARNING,
        count=len(rows),
        message=f"Only {format_count(len(rows), 'row')}. {imprecise}",
        advice=advice,
    )


def _similar_labels(
    balance: ClassBalance, rows: Sequence[TextRow], task: TaskType
) -> Iterator[Finding]:
    groups = find_label_spelling_variants(balance.labels)
    if not groups:
        return
    labels = {label for spellings in groups[:MAX_EXAMPLES] for label in spellings}
    first: dict[str, TextRow] = {}
    for row in rows:
        for name in labels.intersection(decode_label_names(row.label, task)):
            first.setdefault(name, row)
    yield Finding(
        code="similar_labels",
        level=Severity.ERROR,
        count=len(groups),
        message="Labels that differ in case, white space or invisible characters only, or are the "
        f"same number: {shorten_name_list([' and '.join(map(_shown, each)) for each in groups])}.",
        advice="Use one spelling: each spelling is trained as a separate label.",
        examples=tuple(
            make_finding_example(*(first[label] for label in spellings[:MAX_EXAMPLES]))
            for spellings in groups[:MAX_EXAMPLES]
        ),
    )


def _shown(label: str) -> str:
    """Return a label, with the codes of characters that are invisible."""
    return label if label.isprintable() else repr(label)


def _formula_errors(balance: ClassBalance) -> Iterator[Finding]:
    """Yield `formula_errors`. Workbooks with them are refused, but text may mean what it says."""
    errors = [label for label in balance.labels if label in FORMULA_ERRORS]
    if errors:
        count = sum(balance.labels[label].count for label in errors)
        yield Finding(
            code="formula_errors",
            level=Severity.WARNING,
            count=count,
            message=f"{format_count(count, 'row')} with the error of a formula as a label: "
            f"{shorten_name_list(errors)}.",
            advice="Correct the formulas in the spreadsheet and save it again, or remove the rows.",
        )


_SET_SEPARATORS = ";|,"


def _combined_labels(balance: ClassBalance) -> Iterator[Finding]:
    """Yield `combined_labels` if half of the labels or more are made of parts of other labels."""
    for separator in _SET_SEPARATORS:
        parts = {
            label: {part.strip() for part in label.split(separator)} for label in balance.labels
        }
        labels_with = Counter(part for each in parts.values() for part in each)
        combined = [
            label
            for label, each in parts.items()
            if separator in label and "" not in each and all(labels_with[part] > 1 for part in each)
        ]
        if len(combined) > 1 and 2 * len(combined) >= len(parts):
            yield Finding(
                code="combined_labels",
                level=Severity.WARNING,
                count=len(combined),
                message=f"{len(combined):,} of {format_count(len(parts), 'label')} seem to be "
                f"several labels in one cell: {shorten_name_list(combined)}.",
                advice="Each combination is trained as a label of its own. To train the single "
                f"labels, use `--task multi_label --label-separator {separator!r}` (`task.type`, "
                "`data.label_separator`).",
            )


def _missing_labels(balance: ClassBalance) -> Iterator[Finding]:
    missing = [
        (split, label)
        for label, share in balance.labels.items()
        for split, count in share.splits.items()
        if count == 0
    ]
    if missing:
        yield Finding(
            code="labels_missing",
            level=Severity.WARNING,
            count=len(missing),
            message="Labels that are missing in a split: "
            f"{shorten_name_list([f'{label} (in {split})' for split, label in missing])}.",
            advice="Move some rows of each label into every split: the metrics of a split do not "
            "cover a label that it lacks.",
        )


def _alphabetical_ranks(names: Sequence[str]) -> Iterator[Finding]:
    """Yield `alphabetical_ranks` unless the ranks are numbers, whose order is certain."""
    if not are_labels_numeric(names):
        yield Finding(
            code="alphabetical_ranks",
            level=Severity.WARNING,
            count=len(names),
            message=f"The ranks are in alphabetical order: {' < '.join(names[:10])}.",
            advice="If that is not their order, rename the labels so that it is, such as 1-low, "
            "2-medium, 3-high.",
        )


# -- Sets of labels -------------------------------------------------------------------------------

MAX_LISTED = 10  # of the most frequent sets and pairs
MAX_COUNTED_PAIRS = 1_000_000  # those of the most frequent sets first
SAME_LABEL_SIMILARITY = 0.95  # of two labels that seem to mean the same


def measure_label_sets(rows: Sequence[TextRow]) -> LabelSetStatistics:
    """Return the statistics of the rows of a multi-label task."""
    sets = [
        LabelSetCount(labels=decode_label_set(label), count=count)
        for label, count in sorted(
            Counter(row.label for row in rows).items(), key=lambda item: (-item[1], item[0])
        )
    ]
    counts, together = Counter[str](), Counter[tuple[str, str]]()
    for each in sets:
        counts.update(dict.fromkeys(each.labels, each.count))
    pairs = ((pair, each.count) for each in sets for pair in combinations(each.labels, 2))
    for pair, count in islice(pairs, MAX_COUNTED_PAIRS):
        together[pair] += count
    return LabelSetStatistics(
        distinct=len(sets),
        mean_labels=counts.total() / len(rows),
        unlabeled=sum(each.count for each in sets if not each.labels),
        frequent=tuple(sets[:MAX_LISTED]),
        pairs=tuple(
            LabelPairCount(
                labels=pair, count=n, similarity=n / (counts[pair[0]] + counts[pair[1]] - n)
            )
            for pair, n in sorted(together.items(), key=lambda item: (-item[1], item[0]))[
                :MAX_LISTED
            ]
        ),
    )


def _check_label_sets(
    sets: LabelSetStatistics, balance: ClassBalance, rows: Sequence[TextRow]
) -> Iterator[Finding]:
    """Yield `constant_labels`, `labels_together`, `unlabeled_rows`, `one_label_each`."""
    constant = [label for label, share in balance.labels.items() if share.count == len(rows)]
    if constant:
        yield Finding(
            code="constant_labels",
            level=Severity.WARNING,
            count=len(constant),
            message=f"Labels that every row has: {shorten_name_list(constant)}.",
            advice="Leave them out, or add texts without them: a model can only learn to predict "
            "them always.",
        )
    same = [
        pair
        for pair in sets.pairs
        if pair.similarity >= SAME_LABEL_SIMILARITY and pair.count >= MIN_ROWS_PER_LABEL
    ]
    if same:
        yield Finding(
            code="labels_together",
            level=Severity.WARNING,
            count=len(same),
            message="Labels that nearly always occur together: "
            f"{shorten_name_list([' and '.join(pair.labels) for pair in same])}.",
            advice="Merge them if they mean the same.",
        )
    if sets.unlabeled:
        unlabeled = [row for row in rows if not decode_label_set(row.label)]
        share = sets.unlabeled / len(rows)
        yield Finding(
            code="unlabeled_rows",
            level=Severity.WARNING if share >= 0.5 else Severity.INFO,
            count=sets.unlabeled,
            message=f"{format_count(sets.unlabeled, 'row')} ({format_percent(share)}) without any "
            "label.",
            advice="No action is needed if none of the labels applies to them. If they have not "
            "been labeled yet, remove them: they teach a model that nothing applies.",
            examples=tuple(map(make_finding_example, unlabeled[:MAX_EXAMPLES])),
        )
    elif all(len(decode_label_set(row.label)) == 1 for row in rows):
        yield Finding(
            code="one_label_each",
            level=Severity.INFO,
            count=len(rows),
            message="Every row has exactly one label.",
            advice="If texts never have several labels, use a single_label task: it knows that "
            "labels exclude each other.",
        )


# -- Numbers --------------------------------------------------------------------------------------

HISTOGRAM_BINS = 10
_MAX_RANKS = 10  # different integers that may be ranks
_FAR_OUT = (
    3.0  # interquartile ranges beyond the quartiles, from which a number is an outlier (Tukey)
)


def measure_numbers(numbers: NDArray[np.float64]) -> RegressionNumberStatistics:
    """Return the statistics of the numbers (rows,) of a regression."""
    try:
        counts, edges = np.histogram(numbers, bins=HISTOGRAM_BINS)
    except ValueError:  # fewer than ten floats lie between the numbers
        counts, edges = np.array([numbers.size]), np.array([numbers.min(), numbers.max()])
    lower, median, upper = np.quantile(numbers, [0.25, 0.5, 0.75]).tolist()
    return RegressionNumberStatistics(
        minimum=float(numbers.min()),
        maximum=float(numbers.max()),
        mean=float(numbers.mean()),
        std=float(numbers.std()),
        quartiles=(lower, median, upper),
        distinct=len(np.unique(numbers)),
        histogram=tuple(
            HistogramBin(low=float(low), high=float(high), count=int(count))
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        ),
    )


def _check_numbers(rows: Sequence[TextRow], numbers: NDArray[np.float64]) -> Iterator[Finding]:
    """Yield `few_rows`, `outliers`, `outside_range`, `imbalanced`, `ranks`."""
    yield from _few_rows(rows, "regression")
    yield from _outliers(rows, numbers)
    yield from _outside_range(rows, numbers)
    values, counts = np.unique(numbers, return_counts=True)
    share = counts.max() / len(rows)
    if share >= DOMINANT_SHARE:
        yield Finding(
            code="imbalanced",
            level=Severity.WARNING,
            count=int(counts.max()),
            message=f"{format_percent(share)} of the rows have the number "
            f"{values[counts.argmax()]:g}.",
            advice="Compare models by R²: always predicting this number has a small error too.",
        )
    if len(values) <= _MAX_RANKS and (values == values.round()).all():
        yield Finding(
            code="ranks",
            level=Severity.INFO,
            count=len(values),
            message=f"Only {len(values)} different whole numbers.",
            advice="If they are ranks, such as stars, also try a single_label task with ordered "
            "labels, which predicts how probable each of them is.",
        )


def _outliers(rows: Sequence[TextRow], numbers: NDArray[np.float64]) -> Iterator[Finding]:
    lower, median, upper = np.quantile(numbers, [0.25, 0.5, 0.75])
    reach = _FAR_OUT * (upper - lower)
    far = (numbers < lower - reach) | (numbers > upper + reach)
    if reach and far.any():
        distance = np.where(far, np.abs(numbers - median), 0.0)
        order = np.argsort(-distance, kind="stable")[: min(MAX_EXAMPLES, int(far.sum()))]
        yield Finding(
            code="outliers",
            level=Severity.WARNING,
            count=int(far.sum()),
            message=f"{format_count(int(far.sum()), 'row')} with a number far from the others, of "
            f"which the middle half is between {lower:g} and {upper:g}.",
            advice="Check them for typing errors and units. Errors count squared, so a few such "
            "rows can dominate the training; the logarithm of the numbers may be a better label.",
            examples=tuple(make_finding_example(rows[i]) for i in order),
        )


def _outside_range(rows: Sequence[TextRow], numbers: NDArray[np.float64]) -> Iterator[Finding]:
    in_train = np.array([assigned_split(row) in (None, Split.TRAIN) for row in rows])
    low, high = numbers[in_train].min(), numbers[in_train].max()
    outside = np.flatnonzero((numbers < low) | (numbers > high))
    if len(outside):
        yield Finding(
            code="outside_range",
            level=Severity.WARNING,
            count=len(outside),
            message=f"{format_count(len(outside), 'row')} of validation or test with a number "
            f"outside the range of train, {low:g} to {high:g}.",
            advice="Add such texts to train: a model hardly predicts numbers that it has not seen.",
            examples=tuple(make_finding_example(rows[i]) for i in outside[:MAX_EXAMPLES]),
        )
