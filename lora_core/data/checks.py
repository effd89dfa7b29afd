"""Data checks: find the problems of a data set before a model is trained on it."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from lora_core.data import class_balance, duplicates, near_duplicates, text_lines, token_counts
from lora_core.data.contents import FileContents
from lora_core.data.findings import (
    EXCERPT_CHARACTERS,
    MAX_EXAMPLES,
    DataReport,
    Finding,
    Severity,
    TokenStatistics,
    example_of,
    join_names,
    pluralize,
    split_of,
)
from lora_core.data.more_labels import estimate_without_curve
from lora_core.data.rows import TextRow
from lora_core.errors import LoraCoreError
from lora_core.samples import minilm
from lora_core.samples.packages import locate_file
from lora_core.specs.data import Split

# Limits of the slow checks as (rows, characters), so that a report takes about ten seconds on one
# core. Tokenization is slowest; with a few thousand texts its shares are accurate to one percent.
COMPARISON_LIMITS = (100_000, 40_000_000)
TOKENIZATION_LIMITS = (10_000, 5_000_000)


def check_data(contents: FileContents) -> DataReport:
    """Return the report of a valid file.

    The learning curve is added separately (`learning_curve.add_learning_curve`).
    """
    rows = duplicates.sort_by_split(contents.rows)
    distinct, groups = duplicates.group_duplicates(rows)
    train_labels = [
        row.label for row in distinct if split_of(row) in (None, Split.TRAIN) and row.label
    ]
    compared = sample_rows(rows, *COMPARISON_LIMITS)
    balance = class_balance.measure_balance(rows, contents.labels) if contents.labels else None
    tokens, token_findings = _count_tokens(sample_rows(rows, *TOKENIZATION_LIMITS))
    findings = [
        *_parsing_findings(contents),
        *(class_balance.check_class_balance(balance, rows) if balance else ()),
        *duplicates.check_duplicates(groups, len(rows)),
        *near_duplicates.check_near_duplicates(compared),
        *token_findings,
        *_not_compared(len(compared), len(rows)),
    ]
    order = list(Severity)
    return DataReport(
        rows=len(rows),
        compared=len(compared),
        balance=balance,
        tokens=tokens,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.level))),
        more_labels=estimate_without_curve(train_labels),
    )


def sample_rows(rows: Sequence[TextRow], max_rows: int, max_characters: int) -> Sequence[TextRow]:
    """Return a random sample of rows within both limits, in their original order."""
    indices = Random(0).sample(range(len(rows)), min(len(rows), max_rows))  # noqa: S311 - no secret
    sizes = accumulate(len(rows[i].text) for i in indices)
    kept = [i for i, size in zip(indices, sizes, strict=True) if size <= max_characters]
    return [rows[i] for i in sorted(kept)]


def _count_tokens(rows: Sequence[TextRow]) -> tuple[TokenStatistics | None, list[Finding]]:
    """Count tokens with the sample base model, whose tokenizer package may not be installed."""
    try:
        return token_counts.count_tokens(rows, locate_file(minilm.TOKENIZER), minilm.NAME)
    except LoraCoreError as error:
        missing = Finding(
            code="tokens_not_counted",
            level=Severity.INFO,
            count=len(rows),
            message=f"Tokens were not counted: {error}",
            advice="Install the package and run the data checks again.",
        )
        return None, [missing]


def _parsing_findings(contents: FileContents) -> Iterator[Finding]:
    """Yield what was assumed about the file, and what was skipped."""
    info = contents.parse_info
    if info.encoding == text_lines.WINDOWS_1252.name:
        non_ascii = [row for row in contents.rows if not (row.text + row.label).isascii()]
        ordered = sorted(non_ascii, key=lambda row: row.text[:EXCERPT_CHARACTERS].isascii())
        yield Finding(
            code="encoding_assumed",
            level=Severity.WARNING,
            count=len(non_ascii),
            message="The file is not UTF-8. It was read as Windows-1252, the encoding that Excel "
            f"uses for Western European CSV: {pluralize(len(non_ascii), 'row')} with characters "
            "beyond ASCII.",
            advice="Check the accented letters in the examples. If they are wrong, save the file "
            "as .xlsx or as CSV UTF-8 and use that file instead.",
            examples=tuple(example_of(row) for row in ordered[:MAX_EXAMPLES]),
        )
    if other_sheets := [name for name in info.sheets if name != info.sheet]:
        yield Finding(
            code="other_sheets",
            level=Severity.INFO,
            count=len(other_sheets),
            message=f"Only the sheet {info.sheet} was read, not {join_names(other_sheets)}.",
            advice="To read another sheet, load the file again and name the sheet.",
        )
    if info.blank_rows:
        yield Finding(
            code="blank_rows",
            level=Severity.INFO,
            count=info.blank_rows,
            message=f"{pluralize(info.blank_rows, 'blank row')} skipped.",
            advice="No action is needed, unless they should have content.",
        )


def _not_compared(compared: int, rows: int) -> Iterator[Finding]:
    if compared < rows:
        yield Finding(
            code="not_compared",
            level=Severity.INFO,
            count=rows - compared,
            message=f"Near-duplicates were searched in a random sample of {compared:,} of {rows:,} "
            "rows, so there are more than were counted.",
            advice="To find all of them, check smaller files.",
        )
