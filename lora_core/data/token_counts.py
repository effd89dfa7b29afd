"""Data checks of tokens: how many texts are truncated, and how many tokens are unknown."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_core.data.findings import (
    MAX_EXAMPLES,
    Finding,
    FindingExample,
    Severity,
    TokenStatistics,
    example_of,
    format_percent,
    pluralize,
)
from lora_core.data.rows import TextRow
from lora_core.data.tokens import find_special_tokens, load_tokenizer
from lora_core.specs.data import MAX_LENGTH

PERCENTILES = (50, 90, 95, 99, 100)
# Values of max_length for which the share of longer texts is reported.
LENGTHS = (64, 128, 256, MAX_LENGTH)
TRUNCATED_WARNING_SHARE = 0.1  # of texts
UNKNOWN_WARNING_SHARE = 0.05  # of tokens
# Characters tokenized at a time: a token takes far more memory than its characters.
CHUNK_CHARACTERS = 1_000_000


def count_tokens(
    rows: Sequence[TextRow], tokenizer: Path, base: str
) -> tuple[TokenStatistics, list[Finding]]:
    """Return statistics of all texts, and findings on truncation and unknown tokens.

    Raises `BaseNotLoadable`.
    """
    lengths, unknown = _count_per_text(rows, tokenizer)
    own_tokens = np.maximum(lengths - 2, 1)  # without the two special tokens
    statistics = TokenStatistics(
        tokenizer=base,
        texts=len(rows),
        percentiles={
            percentile: int(np.percentile(lengths, percentile, method="lower"))
            for percentile in PERCENTILES
        },
        truncated={length: float((lengths > length).mean()) for length in LENGTHS},
        unknown=float(unknown.sum() / own_tokens.sum()),
    )
    return statistics, [
        *_truncated(statistics, rows, lengths),
        *_unknown(statistics, rows, unknown / own_tokens),
    ]


def _count_per_text(
    rows: Sequence[TextRow], file: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens of each text, including special ones, and how many of them are unknown."""
    tokenizer = load_tokenizer(file)
    unknown_id = tokenizer.get_vocab()[find_special_tokens(tokenizer)["unk_token"]]
    counts = [
        (len(encoding), encoding.ids.count(unknown_id))
        for texts in _chunks(row.text for row in rows)
        for encoding in tokenizer.encode_batch_fast(texts)
    ]
    lengths, unknown = np.array(counts, dtype=np.int64).T
    return lengths, unknown


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _truncated(
    statistics: TokenStatistics, rows: Sequence[TextRow], lengths: NDArray[np.int64]
) -> Iterator[Finding]:
    truncated = int((lengths > MAX_LENGTH).sum())
    share = statistics.truncated[MAX_LENGTH]
    if truncated:
        yield Finding(
            code="truncated",
            level=Severity.WARNING if share >= TRUNCATED_WARNING_SHARE else Severity.INFO,
            count=truncated,
            message=f"{truncated:,} of {pluralize(statistics.texts, 'text')} "
            f"({format_percent(share)}) longer than {MAX_LENGTH} tokens, the default of "
            "max_length. They are truncated.",
            advice="No action is needed if the beginning of a text determines its label. Otherwise "
            "move what matters to the beginning, or split long texts into several rows.",
            examples=_top_examples(truncated, rows, lengths),
        )


def _unknown(
    statistics: TokenStatistics, rows: Sequence[TextRow], shares: NDArray[np.float64]
) -> Iterator[Finding]:
    affected = int((shares > 0).sum())
    if statistics.unknown >= UNKNOWN_WARNING_SHARE:
        yield Finding(
            code="unknown_tokens",
            level=Severity.WARNING,
            count=affected,
            message=f"{format_percent(statistics.unknown)} of all tokens are unknown to "
            f"{statistics.tokenizer}, in {affected:,} of {pluralize(statistics.texts, 'text')}.",
            advice="The base model does not know this language or these characters. Choose a base "
            "model that does, or replace the characters.",
            examples=_top_examples(affected, rows, shares),
        )


def _top_examples(
    count: int, rows: Sequence[TextRow], values: NDArray[np.int64] | NDArray[np.float64]
) -> tuple[FindingExample, ...]:
    """Return up to `count` rows as examples, those with the largest values first."""
    order = np.argsort(-values, kind="stable")
    return tuple(example_of(rows[i]) for i in order[: min(count, MAX_EXAMPLES)])
