"""How rows are spread over labels, and what is wrong with that."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lora_core.data.findings import (
    EXAMPLES,
    Balance,
    Finding,
    LabelShare,
    Level,
    counted,
    listed,
    part,
    percent,
    together,
)
from lora_core.data.labels import similar
from lora_core.data.more_labels import ERRORS, FEW
from lora_core.data.rows import Row
from lora_core.specs.data import Split

DOMINANT = 0.8  # share of one label from which accuracy tells little
RARE = 10  # rows of a label below which there is too little to learn from and to measure on


def balance(rows: Sequence[Row], labels: Sequence[str]) -> Balance:
    """Rows of each label, in all and in each part that the file names."""
    counts = Counter(row.label for row in rows)
    splits = Counter((row.label, part(row)) for row in rows)
    present = [split for split in Split if any((label, split) in splits for label in labels)]
    majority = max(labels, key=lambda label: counts[label])
    return Balance(
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


def findings(found: Balance, rows: Sequence[Row]) -> Iterator[Finding]:
    """`few_rows`, `similar_labels`, `labels_missing`, `rare_labels`, `imbalanced`."""
    yield from _few(rows)
    yield from _similar(found, rows)
    yield from _missing(found)
    rare = [(label, share.count) for label, share in found.labels.items() if share.count < RARE]
    if rare:
        named = listed([f"{label} ({count})" for label, count in rare])
        yield Finding(
            code="rare_labels",
            level=Level.WARNING,
            count=len(rare),
            message=f"{counted(len(rare), 'label')} with fewer than {RARE} rows: {named}.",
            advice="Collect more texts of them or merge them with others: so few are hardly "
            "learnt, and what is measured on them is chance.",
        )
    if found.baseline >= DOMINANT:
        yield Finding(
            code="imbalanced",
            level=Level.WARNING,
            count=found.labels[found.majority].count,
            message=f"Always answering {listed([found.majority])} would be right in "
            f"{percent(found.baseline)} of the rows.",
            advice="Compare models by macro F1 or balanced accuracy instead of accuracy, and try "
            "balanced class weights (task.class_weights).",
        )


def _few(rows: Sequence[Row]) -> Iterator[Finding]:
    if len(rows) >= FEW:
        return
    held_out, folds = next(
        (off for texts, off in reversed(ERRORS.items()) if len(rows) >= texts),
        next(iter(ERRORS.values())),
    )
    yield Finding(
        code="few_rows",
        level=Level.WARNING,
        count=len(rows),
        message=f"Only {counted(len(rows), 'row')}. Accuracy that is measured on a tenth of so few "
        f"is off by about {held_out} points on average, cross-validated accuracy by {folds}.",
        advice="Expect a first draft, compare methods by cross-validation, and label more: each "
        "doubling usually brings several points.",
    )


def _similar(found: Balance, rows: Sequence[Row]) -> Iterator[Finding]:
    twins = similar(found.labels)
    if not twins:
        return
    wanted = {label for spellings in twins[:EXAMPLES] for label in spellings}
    first: dict[str, Row] = {}
    for row in rows:
        if row.label in wanted:
            first.setdefault(row.label, row)
    yield Finding(
        code="similar_labels",
        level=Level.ERROR,
        count=len(twins),
        message="Labels that differ in case or white space alone: "
        f"{listed([' and '.join(spellings) for spellings in twins])}.",
        advice="Write them in one way: each spelling is trained as a label of its own.",
        examples=tuple(
            together(*(first[label] for label in spellings[:EXAMPLES]))
            for spellings in twins[:EXAMPLES]
        ),
    )


def _missing(found: Balance) -> Iterator[Finding]:
    absent = [
        (split, label)
        for label, share in found.labels.items()
        for split, count in share.splits.items()
        if count == 0
    ]
    if absent:
        yield Finding(
            code="labels_missing",
            level=Level.WARNING,
            count=len(absent),
            message="Labels that a part does not have: "
            f"{listed([f'{label} (in {split})' for split, label in absent])}.",
            advice="Move some rows of each label into every part: figures of a part say nothing "
            "of a label that it lacks.",
        )
