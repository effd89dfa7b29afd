"""Data checks of the labels: balance, spelling, coverage of the splits."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lora_core.data.findings import (
    MAX_EXAMPLES,
    ClassBalance,
    Finding,
    LabelShare,
    Severity,
    example_of,
    format_percent,
    join_names,
    pluralize,
    split_of,
)
from lora_core.data.labels import similar_labels
from lora_core.data.more_labels import ACCURACY_ERRORS, MIN_TEXTS
from lora_core.data.rows import TextRow
from lora_core.specs.data import Split

DOMINANT_SHARE = 0.8  # share of one label from which accuracy is uninformative
MIN_ROWS_PER_LABEL = 10  # with fewer, a label can hardly be learned or evaluated


def measure_balance(rows: Sequence[TextRow], labels: Sequence[str]) -> ClassBalance:
    """Return the rows per label, in total and in each split that the file defines."""
    counts = Counter(row.label for row in rows)
    splits = Counter((row.label, split_of(row)) for row in rows)
    present = [split for split in Split if any((label, split) in splits for label in labels)]
    majority = max(labels, key=lambda label: counts[label])
    return ClassBalance(
        labels={
            label: LabelShare(
                count=counts[label],
                share=counts[label] / len(rows),
                splits={split: splits[label, split] for split in present},
            )
            for label in labels
        },
        majority=majority,
        baseline=counts[majority] / len(rows),
    )


def check_class_balance(balance: ClassBalance, rows: Sequence[TextRow]) -> Iterator[Finding]:
    """Yield `few_rows`, `similar_labels`, `labels_missing`, `rare_labels`, `imbalanced`."""
    yield from _few_rows(rows)
    yield from _similar_labels(balance, rows)
    yield from _missing_labels(balance)
    rare = [
        (label, share.count)
        for label, share in balance.labels.items()
        if share.count < MIN_ROWS_PER_LABEL
    ]
    if rare:
        names = join_names([f"{label} ({count})" for label, count in rare])
        yield Finding(
            code="rare_labels",
            level=Severity.WARNING,
            count=len(rare),
            message=f"{pluralize(len(rare), 'label')} with fewer than {MIN_ROWS_PER_LABEL} rows: "
            f"{names}.",
            advice="Collect more texts for them or merge them with other labels: with so few rows "
            "they are hardly learned, and their metrics are mostly chance.",
        )
    if balance.baseline >= DOMINANT_SHARE:
        yield Finding(
            code="imbalanced",
            level=Severity.WARNING,
            count=balance.labels[balance.majority].count,
            message=f"Always predicting {join_names([balance.majority])} would be correct for "
            f"{format_percent(balance.baseline)} of the rows.",
            advice="Compare models by macro F1 or balanced accuracy instead of accuracy, and try "
            "balanced class weights (task.class_weights).",
        )


def _few_rows(rows: Sequence[TextRow]) -> Iterator[Finding]:
    if len(rows) >= MIN_TEXTS:
        return
    holdout_error, cv_error = next(
        (errors for texts, errors in reversed(ACCURACY_ERRORS.items()) if len(rows) >= texts),
        next(iter(ACCURACY_ERRORS.values())),
    )
    yield Finding(
        code="few_rows",
        level=Severity.WARNING,
        count=len(rows),
        message=f"Only {pluralize(len(rows), 'row')}. Accuracy measured on a tenth of them is off "
        f"by about {holdout_error} points on average, cross-validated accuracy by {cv_error}.",
        advice="Expect a first draft, compare methods by cross-validation, and label more texts: "
        "each doubling usually gains several points.",
    )


def _similar_labels(balance: ClassBalance, rows: Sequence[TextRow]) -> Iterator[Finding]:
    groups = similar_labels(balance.labels)
    if not groups:
        return
    labels = {label for spellings in groups[:MAX_EXAMPLES] for label in spellings}
    first: dict[str, TextRow] = {}
    for row in rows:
        if row.label in labels:
            first.setdefault(row.label, row)
    yield Finding(
        code="similar_labels",
        level=Severity.ERROR,
        count=len(groups),
        message="Labels that differ in case or white space only: "
        f"{join_names([' and '.join(spellings) for spellings in groups])}.",
        advice="Use one spelling: each spelling is trained as a separate label.",
        examples=tuple(
            example_of(*(first[label] for label in spellings[:MAX_EXAMPLES]))
            for spellings in groups[:MAX_EXAMPLES]
        ),
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
            f"{join_names([f'{label} (in {split})' for split, label in missing])}.",
            advice="Move some rows of each label into every split: the metrics of a split do not "
            "cover a label that it lacks.",
        )
