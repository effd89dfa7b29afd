"""Data checks of near-duplicates, without comparing all pairs of texts.

A text is represented by the set of its word bigrams. For each of many hash functions the minimum
over the set is kept (MinHash, Broder 1997): the share of equal minima of two texts estimates the
Jaccard similarity of their sets. Only texts that agree in a whole band of minima are compared, each
with the first text of its bucket, so that the time is never quadratic.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from lora_core.data.duplicates import describe_split_pairs, duplicate_severity, group_duplicates
from lora_core.data.findings import (
    MAX_EXAMPLES,
    Finding,
    FindingExample,
    Severity,
    example_of,
    pluralize,
    split_of,
)
from lora_core.data.rows import TextRow

MIN_SIMILARITY = 0.8  # Jaccard similarity from which two texts are near-duplicates
NUM_HASHES = 128  # per text; the standard error of a similarity of 0.8 is then 0.035
NUM_BANDS = 32  # of four hashes each: texts of similarity 0.8 almost certainly share one
# A word. Chinese and Japanese are written without spaces, so each of their characters is one.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


class NearDuplicate(NamedTuple):
    """Two texts that are nearly, but not exactly, the same."""

    earlier: TextRow
    later: TextRow
    similarity: float


def find_near_duplicates(rows: Sequence[TextRow]) -> list[NearDuplicate]:
    """Return for each text the first earlier row that is a near-duplicate."""
    distinct, _ = group_duplicates(rows)
    signatures = np.array([_minhash(row.text) for row in distinct])  # (texts, HASHES)
    order = np.arange(len(signatures))
    nearest = order
    for band in np.split(signatures, NUM_BANDS, axis=1):
        _, first, bucket = np.unique(band, axis=0, return_index=True, return_inverse=True)
        earlier = first[bucket.ravel()]
        similar = (signatures == signatures[earlier]).mean(axis=1) >= MIN_SIMILARITY
        nearest = np.where(similar, np.minimum(nearest, earlier), nearest)
    return [
        NearDuplicate(
            distinct[nearest[i]],
            distinct[i],
            float((signatures[i] == signatures[nearest[i]]).mean()),
        )
        for i in np.flatnonzero(nearest < order)
    ]


def check_near_duplicates(rows: Sequence[TextRow]) -> Iterator[Finding]:
    """Yield `nearly_leaked`, `nearly_conflicting`, `near_duplicates`, for rows sorted by split."""
    near_duplicates = sorted(find_near_duplicates(rows), key=lambda pair: -pair.similarity)
    if leaks := [
        pair for pair in near_duplicates if split_of(pair.earlier) is not split_of(pair.later)
    ]:
        yield Finding(
            code="nearly_leaked",
            level=Severity.WARNING,
            count=len(leaks),
            message="Near-duplicates of a text in another split: "
            f"{describe_split_pairs((pair.earlier, pair.later) for pair in leaks)}.",
            advice="Keep such texts in one split: the metrics of the other one are too good.",
            examples=_examples(leaks),
        )
    if conflicts := [pair for pair in near_duplicates if pair.earlier.label != pair.later.label]:
        yield Finding(
            code="nearly_conflicting",
            level=duplicate_severity(len(conflicts), len(rows)),
            count=len(conflicts),
            message=f"{pluralize(len(conflicts), 'text')} nearly the same as another one, but with "
            "a different label.",
            advice="Check whether the difference justifies two labels. If not, correct one.",
            examples=_examples(conflicts),
        )
    if near_duplicates:
        yield Finding(
            code="near_duplicates",
            level=duplicate_severity(len(near_duplicates), len(rows)),
            count=len(near_duplicates),
            message=f"{pluralize(len(near_duplicates), 'text')} nearly the same as an earlier one.",
            advice="Drawn splits keep exact duplicates together, but not near-duplicates, so "
            "metrics may be too good. Delete them, or define the splits yourself.",
            examples=_examples(near_duplicates),
        )


def _examples(near_duplicates: Sequence[NearDuplicate]) -> tuple[FindingExample, ...]:
    return tuple(
        example_of(pair.earlier, pair.later, similarity=round(pair.similarity, 2))
        for pair in near_duplicates[:MAX_EXAMPLES]
    )


def _minhash(text: str) -> NDArray[np.uint32]:
    """Return the signature (NUM_HASHES,), ignoring case, white space and punctuation."""
    lowered = text.casefold()
    words = WORD.findall(lowered) or [lowered]
    sketch = RMinHash(num_perm=NUM_HASHES, seed=0)
    sketch.update([" ".join(pair) for pair in pairwise(words)] or words)
    return np.array(sketch.digest(), dtype=np.uint32)
