"""How long texts are in tokens, and how many of these the vocabulary does not know."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_core.data.findings import (
    EXAMPLES,
    Example,
    Finding,
    Level,
    TokenCounts,
    counted,
    percent,
    together,
)
from lora_core.data.rows import Row
from lora_core.data.tokens import load_tokenizer, special_tokens
from lora_core.specs.data import MAX_LENGTH

PERCENTILES = (50, 90, 95, 99, 100)
LENGTHS = (64, 128, 256, MAX_LENGTH)  # for which it is told how many texts are longer
MUCH_CUT = 0.1  # share of texts
MUCH_UNKNOWN = 0.05  # share of tokens
CHUNK = 1_000_000  # characters tokenised at a time: a token takes far more memory than its letters


def count(rows: Sequence[Row], tokenizer: Path, base: str) -> tuple[TokenCounts, list[Finding]]:
    """Figures of all texts, and `truncated` and `unknown_tokens`. Raises `BrokenBase`."""
    lengths, unknown = _lengths(rows, tokenizer)
    words = np.maximum(lengths - 2, 1)  # without the two special tokens
    found = TokenCounts(
        tokenizer=base,
        texts=len(rows),
        percentiles={
            each: int(np.percentile(lengths, each, method="lower")) for each in PERCENTILES
        },
        truncated={length: float((lengths > length).mean()) for length in LENGTHS},
        unknown=float(unknown.sum() / words.sum()),
    )
    return found, [*_truncated(found, rows, lengths), *_unknown(found, rows, unknown / words)]


def _lengths(rows: Sequence[Row], file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens of each text, special ones included, and how many of them are unknown."""
    tokenizer = load_tokenizer(file)
    strange = tokenizer.get_vocab()[special_tokens(tokenizer)["unk_token"]]
    counts = [
        (len(encoding), encoding.ids.count(strange))
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
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _truncated(
    found: TokenCounts, rows: Sequence[Row], lengths: NDArray[np.int64]
) -> Iterator[Finding]:
    cut = int((lengths > MAX_LENGTH).sum())
    share = found.truncated[MAX_LENGTH]
    if cut:
        yield Finding(
            code="truncated",
            level=Level.WARNING if share >= MUCH_CUT else Level.INFO,
            count=cut,
            message=f"{cut:,} of {counted(found.texts, 'text')} ({percent(share)}) longer than "
            f"{MAX_LENGTH} tokens, the default of max_length: only the beginning is read.",
            advice="Fine where the beginning tells the label. Else put what matters first, or "
            "make several rows of a long text.",
            examples=_first(cut, rows, lengths),
        )


def _unknown(
    found: TokenCounts, rows: Sequence[Row], shares: NDArray[np.float64]
) -> Iterator[Finding]:
    strange = int((shares > 0).sum())
    if found.unknown >= MUCH_UNKNOWN:
        yield Finding(
            code="unknown_tokens",
            level=Level.WARNING,
            count=strange,
            message=f"{percent(found.unknown)} of all tokens are unknown to {found.tokenizer}, "
            f"in {strange:,} of {counted(found.texts, 'text')}.",
            advice="The base has not learnt this language or these signs. Name a base that "
            "has, or replace what it cannot read.",
            examples=_first(strange, rows, shares),
        )


def _first(
    count: int, rows: Sequence[Row], figures: NDArray[np.int64] | NDArray[np.float64]
) -> tuple[Example, ...]:
    """Up to `count` rows, those with the largest figures first."""
    order = np.argsort(-figures, kind="stable")
    return tuple(together(rows[i]) for i in order[: min(count, EXAMPLES)])
