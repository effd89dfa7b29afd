"""What the doctor says of a data set."""

from enum import StrEnum

from lora_core.data.more_labels import MoreLabels
from lora_core.data.rows import Row
from lora_core.data.split import named
from lora_core.specs.data import Split
from lora_core.specs.frozen import Frozen

EXCERPT = 160  # characters of a text
EXAMPLES = 5  # of a finding
SHOWN_LABELS = 5  # of a message


class Level(StrEnum):
    """How much a finding matters, the worst first."""

    ERROR = "error"  # figures or the model will be wrong
    WARNING = "warning"  # worth a look before training
    INFO = "info"


class Cited(Frozen):
    """A row that a finding names."""

    row: int
    text: str  # the first characters of it
    label: str | None
    split: Split | None

    @classmethod
    def of(cls, row: Row) -> "Cited":
        text = " ".join(row.text[: 2 * EXCERPT].split())
        if len(text) > EXCERPT or len(row.text) > 2 * EXCERPT:
            text = f"{text[: EXCERPT - 1]}…"
        return cls(row=row.number, text=text, label=row.label or None, split=part(row))


class Example(Frozen):
    """Rows that belong together: copies of a text, or one row alone."""

    rows: tuple[Cited, ...]
    similarity: float | None = None  # of two texts that are nearly the same, at most 1


class Finding(Frozen):
    """One thing that was noticed. Programs go by `code`."""

    code: str
    level: Level
    count: int  # how many there are of what the message tells
    message: str
    advice: str  # what to do
    examples: tuple[Example, ...] = ()


class LabelShare(Frozen):
    """How many rows have a label."""

    count: int
    share: float
    splits: dict[Split, int]  # of the parts that the file names


class Balance(Frozen):
    """Rows by label."""

    labels: dict[str, LabelShare]  # in the order of training
    majority: str  # the most frequent label
    baseline: float  # accuracy of always answering it


class TokenCounts(Frozen):
    """How long texts are for a base. Special tokens are counted, but for `unknown`."""

    tokenizer: str  # of this base
    texts: int  # that were counted, drawn at random where there are more
    percentiles: dict[int, int]  # 50 → tokens of the middle text, 100 → of the longest
    truncated: dict[int, float]  # max_length → share of texts that are longer
    unknown: float  # share of tokens that the vocabulary has no word for


class Diagnosis(Frozen):
    """All of it. Every row is looked at, but for near copies and tokens, which take longest."""

    rows: int
    compared: int  # rows in which near copies were looked for
    balance: Balance | None  # None: there are no labels
    tokens: TokenCounts | None  # None: the tokenizer of the sample base is not installed
    findings: tuple[Finding, ...]  # the worst first
    more_labels: MoreLabels | None = None  # None: there was no time to measure a learning curve


def part(row: Row) -> Split | None:
    """The part that the file puts the row in."""
    return None if row.split is None else named(row.split)


def together(*rows: Row, similarity: float | None = None) -> Example:
    """Rows as an example."""
    return Example(rows=tuple(map(Cited.of, rows)), similarity=similarity)


def counted(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def percent(share: float) -> str:
    """`12.5 %`."""
    return f"{100 * share:.1f} %"


def listed(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - SHOWN_LABELS
    shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in names[:SHOWN_LABELS]]
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
