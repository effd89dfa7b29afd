"""Examines a data set before anyone trains on it."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from lora_core.data import class_balance, duplicates, encoding, near_duplicates, token_counts
from lora_core.data.contents import Contents
from lora_core.data.findings import (
    EXAMPLES,
    EXCERPT,
    Diagnosis,
    Finding,
    Level,
    TokenCounts,
    counted,
    listed,
    part,
    together,
)
from lora_core.data.more_labels import without_curve
from lora_core.data.rows import Row
from lora_core.errors import LoraCoreError
from lora_core.samples import minilm
from lora_core.samples.packages import locate
from lora_core.specs.data import Split

# What is looked at, at most, so that a diagnosis takes some ten seconds on one core: (rows,
# characters). Tokens take longest, and of a few thousand texts the shares are right to a percent.
COMPARED = (100_000, 40_000_000)
TOKENISED = (10_000, 5_000_000)


def diagnose(contents: Contents) -> Diagnosis:
    """What is worth knowing of a sound file, but for a curve (`learning_curve.complete`)."""
    rows = duplicates.by_part(contents.rows)
    distinct, groups = duplicates.grouped(rows)
    trained = [row.label for row in distinct if part(row) in (None, Split.TRAIN) and row.label]
    compared = sample(rows, *COMPARED)
    found = class_balance.balance(rows, contents.labels) if contents.labels else None
    tokens, of_tokens = _tokens(sample(rows, *TOKENISED))
    findings = [
        *_reading(contents),
        *(class_balance.findings(found, rows) if found else ()),
        *duplicates.findings(groups, len(rows)),
        *near_duplicates.findings(compared),
        *of_tokens,
        *_not_compared(len(compared), len(rows)),
    ]
    order = list(Level)
    return Diagnosis(
        rows=len(rows),
        compared=len(compared),
        balance=found,
        tokens=tokens,
        findings=tuple(sorted(findings, key=lambda each: order.index(each.level))),
        more_labels=without_curve(trained),
    )


def sample(rows: Sequence[Row], most: int, characters: int) -> Sequence[Row]:
    """As many rows, drawn at random, as fit; in their order."""
    drawn = Random(0).sample(range(len(rows)), min(len(rows), most))  # noqa: S311 - no secret
    sizes = accumulate(len(rows[i].text) for i in drawn)
    fitting = [i for i, size in zip(drawn, sizes, strict=True) if size <= characters]
    return [rows[i] for i in sorted(fitting)]


def _tokens(rows: Sequence[Row]) -> tuple[TokenCounts | None, list[Finding]]:
    """By the sample base. Its tokenizer comes with a package that may not be there."""
    try:
        return token_counts.count(rows, locate(minilm.TOKENIZER), minilm.NAME)
    except LoraCoreError as error:
        missing = Finding(
            code="tokens_not_counted",
            level=Level.INFO,
            count=len(rows),
            message=f"Tokens were not counted: {error}",
            advice="Install the package and check the data again.",
        )
        return None, [missing]


def _reading(contents: Contents) -> Iterator[Finding]:
    """What had to be assumed about the file, or was left out of it."""
    reading = contents.reading
    if reading.encoding == encoding.WINDOWS_1252.name:
        accented = [row for row in contents.rows if not (row.text + row.label).isascii()]
        shown = sorted(accented, key=lambda row: row.text[:EXCERPT].isascii())
        yield Finding(
            code="encoding_assumed",
            level=Level.WARNING,
            count=len(accented),
            message="The file is not UTF-8. It was read as Windows-1252, the encoding in which "
            f"Excel saves Western European CSV: {counted(len(accented), 'row')} with characters "
            "beyond ASCII.",
            advice="See whether the letters with accents are right in the examples. If they are "
            "not, save the file as .xlsx or as CSV UTF-8 and take that.",
            examples=tuple(together(row) for row in shown[:EXAMPLES]),
        )
    if others := [name for name in reading.sheets if name != reading.sheet]:
        yield Finding(
            code="other_sheets",
            level=Level.INFO,
            count=len(others),
            message=f"Only the sheet {reading.sheet} was read, not {listed(others)}.",
            advice="To read another one, take the file again and name the sheet.",
        )
    if reading.blank_rows:
        yield Finding(
            code="blank_rows",
            level=Level.INFO,
            count=reading.blank_rows,
            message=f"{counted(reading.blank_rows, 'blank row')} skipped.",
            advice="Nothing to do, unless there should be something in them.",
        )


def _not_compared(compared: int, rows: int) -> Iterator[Finding]:
    if compared < rows:
        yield Finding(
            code="not_compared",
            level=Level.INFO,
            count=rows - compared,
            message=f"Near copies were looked for in {compared:,} of {rows:,} rows, drawn at "
            "random: there are more of them than were counted.",
            advice="To find all of them, check smaller files.",
        )
