"""Data checks: find the problems of a dataset before a model is trained on it."""

import shlex
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from lora_core.data import chat, duplicates, text_files
from lora_core.data.data_report import (
    EXCERPT_CHARACTERS,
    MAX_EXAMPLES,
    DataReport,
    Finding,
    FindingExample,
    Severity,
    TokenStatistics,
    assigned_split,
    format_count,
    format_percent,
    make_finding_example,
    shorten_name_list,
)
from lora_core.data.file_inspection import FileContents
from lora_core.data.label_checks import build_label_report
from lora_core.data.more_labels_estimate import estimate_if_curve_impossible
from lora_core.data.rows import SPLIT_COLUMN, TextRow
from lora_core.data.tokens import build_special_tokens_map, chunk_texts, load_tokenizer
from lora_core.errors import LoraCoreError
from lora_core.samples import minilm
from lora_core.samples.packages import get_verified_file_path
from lora_core.specs.data import MAX_LENGTH, Split
from lora_core.specs.text_input import text_or_pair

# Limits of the slow checks as (rows, characters), so that a report takes about ten seconds on one
# core. Tokenization is slowest; with a few thousand texts its shares are accurate to one percent.
COMPARISON_LIMITS = (100_000, 40_000_000)
_TOKENIZATION_LIMITS = (10_000, 5_000_000)


def check_data(contents: FileContents) -> DataReport:
    """Return the report of a valid file.

    The learning curve is added separately (`learning_curve.add_learning_curve_to_report`).
    """
    task = contents.columns.label_format.task if contents.columns.label else "single_label"
    rows = duplicates.sort_by_split(contents.rows)
    distinct, groups = duplicates.group_duplicates(rows)
    train_labels = [
        row.label for row in distinct if assigned_split(row) in (None, Split.TRAIN) and row.label
    ]
    contradiction = duplicates.LabelConflictCriterion.of_task(task, rows)
    compared = sample_rows(rows, *COMPARISON_LIMITS)
    labels = build_label_report(rows, contents.labels, contents.columns.label_format)
    tokens, token_findings = _count_tokens(sample_rows(rows, *_TOKENIZATION_LIMITS))
    findings = [
        *_parsing_findings(contents),
        *labels.findings,
        *duplicates.check_duplicates(groups, len(rows), contradiction),
        *duplicates.check_near_duplicates(compared, contradiction),
        *token_findings,
        *_not_compared(len(compared), len(rows)),
    ]
    order = list(Severity)
    return DataReport(
        rows=len(rows),
        compared=len(compared),
        balance=labels.balance,
        label_sets=labels.label_sets,
        numbers=labels.numbers,
        targets=dict(labels.targets),
        tokens=tokens,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.level))),
        more_labels=estimate_if_curve_impossible(train_labels, task),
    )


def sample_rows(rows: Sequence[TextRow], max_rows: int, max_characters: int) -> Sequence[TextRow]:
    """Return a random sample of rows within both limits, in their original order."""
    indices = Random(0).sample(range(len(rows)), min(len(rows), max_rows))  # noqa: S311 - no secret
    sizes = accumulate(rows[i].characters for i in indices)
    kept = [i for i, size in zip(indices, sizes, strict=True) if size <= max_characters]
    return [rows[i] for i in sorted(kept)]


def _count_tokens(rows: Sequence[TextRow]) -> tuple[TokenStatistics | None, list[Finding]]:
    """Count tokens with the sample base model, which may not be on this host."""
    try:
        return check_tokenization(rows, get_verified_file_path(minilm.TOKENIZER), minilm.NAME)
    except LoraCoreError as error:
        missing = Finding(
            code="tokens_not_counted",
            level=Severity.INFO,
            count=len(rows),
            message=f"Tokens were not counted: {error}",
            advice="Fetch the samples and run the data checks again.",
        )
        return None, [missing]


def _parsing_findings(contents: FileContents) -> Iterator[Finding]:
    """Yield what was assumed about the file, and what was skipped."""
    info = contents.parse_info
    if info.encoding == text_files.WINDOWS_1252.name:
        non_ascii = [
            row for row in contents.rows if not (row.text + (row.pair or "") + row.label).isascii()
        ]
        ordered = sorted(non_ascii, key=lambda row: row.text[:EXCERPT_CHARACTERS].isascii())
        yield Finding(
            code="encoding_assumed",
            level=Severity.WARNING,
            count=len(non_ascii),
            message="The file is not UTF-8. It was read as Windows-1252, the encoding that Excel "
            f"uses for Western European CSV: {format_count(len(non_ascii), 'row')} with characters "
            "beyond ASCII.",
            advice="Check the accented letters in the examples. If they are wrong, save the file "
            "as .xlsx or as CSV UTF-8 and use that file instead.",
            examples=tuple(make_finding_example(row) for row in ordered[:MAX_EXAMPLES]),
        )
    if other_sheets := [name for name in info.sheets if name != info.sheet]:
        yield Finding(
            code="other_sheets",
            level=Severity.INFO,
            count=len(other_sheets),
            message=f"Only the sheet {info.sheet} was read, not {shorten_name_list(other_sheets)}.",
            advice="To read another sheet, load the file again and name the sheet.",
        )
    if info.unread_split is not None:
        yield Finding(
            code="split_not_read",
            level=Severity.WARNING,
            count=len(contents.rows),
            message=f"The column {info.unread_split!r} was not read: without being named, only "
            f"{SPLIT_COLUMN!r}, spelled exactly so, is the split of a row. All rows may be trained "
            "on.",
            advice=f"If it has the split of each row, rename it to {SPLIT_COLUMN} or name it with "
            f"`split_column` (`--split-column {shlex.quote(info.unread_split)}`).",
        )
    if info.rows_with_thousands:
        doubtful = set(info.rows_with_thousands)
        rows = [row for row in contents.rows if row.number in doubtful]
        yield Finding(
            code="thousands_separator",
            level=Severity.WARNING,
            count=len(rows),
            message=f"{format_count(len(rows), 'number')} with a point and exactly three digits "
            "after it. All with a point are like that, and others are whole numbers of 100 or "
            "more: the point may separate thousands, but was read as a decimal point.",
            advice="If 1.234 means one thousand two hundred and thirty-four, remove the points.",
            examples=tuple(make_finding_example(row) for row in rows[:MAX_EXAMPLES]),
        )
    if info.prompt_format is not None:
        yield Finding(
            code="prompt_format",
            level=Severity.INFO,
            count=len(contents.rows),
            message=chat.describe_prompt_format(info.prompt_format),
            advice="Look at some rows. No action is needed if they are the texts to classify.",
        )
    if info.disputed_rows:
        disputed = set(info.disputed_rows)
        rows = [row for row in contents.rows if row.number in disputed]
        yield Finding(
            code="annotators_disagree",
            level=Severity.WARNING,
            count=len(rows),
            message=f"{format_count(len(rows), 'text')} with annotations that differ. The label is "
            "what most annotations have, or of a tie the latest one.",
            advice="Look at the examples. To decide one, mark the right annotation as ground truth "
            "in Label Studio, and export again.",
            examples=tuple(make_finding_example(row) for row in rows[:MAX_EXAMPLES]),
        )
    if info.unannotated_tasks:
        yield Finding(
            code="unannotated_tasks",
            level=Severity.INFO,
            count=info.unannotated_tasks,
            message=f"{format_count(info.unannotated_tasks, 'task')} of Label Studio skipped: "
            "no annotation was submitted.",
            advice="No action is needed. To predict them, use the file for predictions.",
        )
    if info.blank_rows:
        yield Finding(
            code="blank_rows",
            level=Severity.INFO,
            count=info.blank_rows,
            message=f"{format_count(info.blank_rows, 'blank row')} skipped.",
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


# -- Tokens: how many texts are truncated, and how many tokens are unknown ------------------------

PERCENTILES = (50, 90, 95, 99, 100)
# Values of max_length for which the share of longer texts is reported.
REPORTED_LENGTHS = (64, 128, 256, MAX_LENGTH)
TRUNCATED_WARNING_SHARE = 0.1  # of texts
UNKNOWN_WARNING_SHARE = 0.05  # of tokens


def check_tokenization(
    rows: Sequence[TextRow], tokenizer: Path, base: str
) -> tuple[TokenStatistics, list[Finding]]:
    """Return statistics of all texts, and findings on truncation and unknown tokens.

    Raises `UnreadableBase`.
    """
    lengths, unknown = _count_per_text(rows, tokenizer)
    special = 3 if rows and rows[0].pair is not None else 2
    own_tokens = np.maximum(lengths - special, 1)  # without the special tokens
    statistics = TokenStatistics(
        tokenizer=base,
        texts=len(rows),
        percentiles={
            percentile: int(np.percentile(lengths, percentile, method="lower"))
            for percentile in PERCENTILES
        },
        truncated={length: float((lengths > length).mean()) for length in REPORTED_LENGTHS},
        unknown=float(unknown.sum() / own_tokens.sum()),
    )
    return statistics, [
        *_truncated_texts(statistics, rows, lengths),
        *_unknown_tokens(statistics, rows, unknown / own_tokens),
    ]


def _count_per_text(
    rows: Sequence[TextRow], file: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens of each text, including special ones, and how many of them are unknown."""
    tokenizer = load_tokenizer(file)
    unknown_id = tokenizer.get_vocab()[build_special_tokens_map(tokenizer)["unk_token"]]
    counts = [
        (len(encoding), encoding.ids.count(unknown_id))
        for texts in chunk_texts(text_or_pair(row.text, row.pair) for row in rows)
        for encoding in tokenizer.encode_batch_fast(texts)
    ]
    lengths, unknown = np.array(counts, dtype=np.int64).T
    return lengths, unknown


def _truncated_texts(
    statistics: TokenStatistics, rows: Sequence[TextRow], lengths: NDArray[np.int64]
) -> Iterator[Finding]:
    truncated = int((lengths > MAX_LENGTH).sum())
    share = statistics.truncated[MAX_LENGTH]
    if truncated:
        yield Finding(
            code="truncated",
            level=Severity.WARNING if share >= TRUNCATED_WARNING_SHARE else Severity.INFO,
            count=truncated,
            message=f"{truncated:,} of {format_count(statistics.texts, 'text')} "
            f"({format_percent(share)}) longer than {MAX_LENGTH} tokens, the default of "
            "max_length. They are truncated.",
            advice="No action is needed if the beginning of a text determines its label. Otherwise "
            "read them in windows (data.long_texts), or move what matters to the beginning.",
            examples=_top_examples(truncated, rows, lengths),
        )


def _unknown_tokens(
    statistics: TokenStatistics, rows: Sequence[TextRow], shares: NDArray[np.float64]
) -> Iterator[Finding]:
    affected = int((shares > 0).sum())
    if statistics.unknown >= UNKNOWN_WARNING_SHARE:
        yield Finding(
            code="unknown_tokens",
            level=Severity.WARNING,
            count=affected,
            message=f"{format_percent(statistics.unknown)} of all tokens are unknown to "
            f"{statistics.tokenizer}, in {affected:,} of {format_count(statistics.texts, 'text')}.",
            advice="The base model does not know this language or these characters. Choose a base "
            "model that does, or replace the characters.",
            examples=_top_examples(affected, rows, shares),
        )


def _top_examples(
    count: int, rows: Sequence[TextRow], values: NDArray[np.int64] | NDArray[np.float64]
) -> tuple[FindingExample, ...]:
    """Return up to `count` rows as examples, those with the largest values first."""
    order = np.argsort(-values, kind="stable")
    return tuple(make_finding_example(rows[i]) for i in order[: min(count, MAX_EXAMPLES)])
