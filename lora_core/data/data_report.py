"""The report of the data checks: findings, class balance and token statistics."""

from enum import StrEnum

from pydantic import Field

from lora_core.data.more_labels_estimate import MoreLabelsEstimate
from lora_core.data.rows import TextRow
from lora_core.specs.data import Split, split_from_name
from lora_core.specs.fields import FrozenModel

EXCERPT_CHARACTERS = 160
MAX_EXAMPLES = 5  # per finding
_MAX_NAMES = 5  # listed in a message


class Severity(StrEnum):
    """The severity of a finding, most severe first."""

    ERROR = "error"  # metrics or the model will be wrong
    WARNING = "warning"  # worth checking before training
    INFO = "info"


class RowExcerpt(FrozenModel):
    """A row quoted by a finding."""

    row: int
    text: str  # the first characters
    # of a pair, the first characters of the second text
    text_pair: str | None = Field(default=None, exclude_if=lambda value: value is None)
    label: str | None
    split: Split | None

    @classmethod
    def from_row(cls, row: TextRow) -> "RowExcerpt":
        return cls(
            row=row.number,
            text=_excerpt(row.text),
            text_pair=row.pair if row.pair is None else _excerpt(row.pair),
            label=row.label or None,
            split=assigned_split(row),
        )


def _excerpt(text: str) -> str:
    words = " ".join(text[: 2 * EXCERPT_CHARACTERS].split())
    if len(words) > EXCERPT_CHARACTERS or len(text) > 2 * EXCERPT_CHARACTERS:
        return f"{words[: EXCERPT_CHARACTERS - 1]}…"
    return words


class FindingExample(FrozenModel):
    """Rows that belong together: duplicates of a text, or a single row."""

    rows: tuple[RowExcerpt, ...]
    similarity: float | None = None  # of two near-duplicates, at most 1


class Finding(FrozenModel):
    """One problem of the data. `code` is stable and meant for programs."""

    code: str
    level: Severity
    count: int  # number of rows, texts or labels that the message is about
    message: str
    advice: str  # what to do about it
    examples: tuple[FindingExample, ...] = ()


class LabelRowCounts(FrozenModel):
    """The rows of one label."""

    count: int
    share: float
    splits: dict[Split, int]  # rows in each split that the file defines


class ClassBalance(FrozenModel):
    """The distribution of rows over labels."""

    labels: dict[str, LabelRowCounts]  # in training order
    # The most frequent label. Of a multi-label task the most frequent set, with commas.
    majority: str
    baseline: float  # accuracy of always predicting that


class LabelSetCount(FrozenModel):
    """The rows that have exactly these labels."""

    labels: tuple[str, ...]
    count: int


class LabelPairCount(FrozenModel):
    """The rows that have both labels."""

    labels: tuple[str, str]
    count: int
    similarity: float  # rows with both labels per rows with one of them (Jaccard), at most 1


class LabelSetStatistics(FrozenModel):
    """The sets of labels that the rows of a multi-label task have."""

    distinct: int
    mean_labels: float  # of a row
    unlabeled: int  # rows without any label
    frequent: tuple[LabelSetCount, ...]  # the most frequent sets
    pairs: tuple[LabelPairCount, ...]  # the most frequent pairs of labels


class HistogramBin(FrozenModel):
    """The rows with a number from `low` up to `high`, which only the last bin includes."""

    low: float
    high: float
    count: int


class RegressionNumberStatistics(FrozenModel):
    """The numbers of a regression."""

    minimum: float
    maximum: float
    mean: float
    std: float
    quartiles: tuple[float, float, float]
    distinct: int
    histogram: tuple[HistogramBin, ...]  # of equal width


class TokenStatistics(FrozenModel):
    """Token counts of the texts. Special tokens are included, except in `unknown`."""

    tokenizer: str  # name of the base model whose tokenizer was used
    texts: int  # texts that were tokenized; a random sample if there are more
    percentiles: dict[int, int]  # percentile → tokens: 50 is the median text, 100 the longest
    truncated: dict[int, float]  # max_length → share of longer texts
    unknown: float  # share of tokens that are not in the vocabulary


class TargetStatistics(FrozenModel):
    """The labels or numbers of one of several targets."""

    balance: ClassBalance | None
    label_sets: LabelSetStatistics | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    numbers: RegressionNumberStatistics | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


class DataReport(FrozenModel):
    """The result of the data checks. Near-duplicates and tokens are checked on a sample, everything
    else on all rows."""

    rows: int
    compared: int  # rows that were searched for near-duplicates
    balance: ClassBalance | None  # None: no labels
    label_sets: LabelSetStatistics | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    numbers: RegressionNumberStatistics | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    targets: dict[str, TargetStatistics] = Field(default={}, exclude_if=lambda value: not value)
    tokens: TokenStatistics | None  # None: the sample base model is not on this host
    findings: tuple[Finding, ...]  # most severe first
    # None: there was no time to measure a learning curve
    more_labels: MoreLabelsEstimate | None = None


def assigned_split(row: TextRow) -> Split | None:
    """Return the split that the file assigns to a row."""
    return None if row.split is None else split_from_name(row.split)


def make_finding_example(*rows: TextRow, similarity: float | None = None) -> FindingExample:
    """Return rows as an example of a finding."""
    return FindingExample(rows=tuple(map(RowExcerpt.from_row, rows)), similarity=similarity)


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun: `1 row`, `2,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_percent(share: float) -> str:
    """Return a share as a percentage: `12.5%`."""
    return f"{100 * share:.1f}%"


def shorten_name_list(names: list[str]) -> str:
    """Return the first names, shortened, and the number of further ones."""
    more = len(names) - _MAX_NAMES
    shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in names[:_MAX_NAMES]]
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
