"""Texts that are nearly the same, found without comparing each with each.

A text is the set of its pairs of neighbouring words. Of each of many hash functions the smallest
value over the set is kept (MinHash, Broder 1997): two texts agree in as large a share of these
values as their sets have in common (Jaccard). Only texts that agree in a whole band of values are
compared, each with the first one of its bucket, so that no data makes it quadratic.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from lora_core.data.duplicates import across, grouped, level
from lora_core.data.findings import EXAMPLES, Example, Finding, Level, counted, part, together
from lora_core.data.rows import Row

ALIKE = 0.8  # from this similarity on two texts are nearly the same
HASHES = 128  # of a text; the standard error of a similarity of 0.8 is 0.035 then
BANDS = 32  # of four hashes each: two texts of similarity 0.8 share one all but surely
# A word; a sign of Chinese or Japanese, which write no spaces, is one by itself.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


class Near(NamedTuple):
    """Two texts that are nearly the same, but not the same."""

    earlier: Row
    later: Row
    similarity: float


def pairs(rows: Sequence[Row]) -> list[Near]:
    """For each text the first one of the rows before that is found to be near it."""
    distinct, _ = grouped(rows)
    kept = np.array([_signature(row.text) for row in distinct])  # (texts, HASHES)
    order = np.arange(len(kept))
    nearest = order
    for band in np.split(kept, BANDS, axis=1):
        _, first, bucket = np.unique(band, axis=0, return_index=True, return_inverse=True)
        earlier = first[bucket.ravel()]
        alike = (kept == kept[earlier]).mean(axis=1) >= ALIKE
        nearest = np.where(alike, np.minimum(nearest, earlier), nearest)
    return [
        Near(distinct[nearest[i]], distinct[i], float((kept[i] == kept[nearest[i]]).mean()))
        for i in np.flatnonzero(nearest < order)
    ]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """`nearly_leaked`, `nearly_conflicting`, `near_duplicates`, from rows in their parts' order."""
    found = sorted(pairs(rows), key=lambda pair: -pair.similarity)
    if leaks := [pair for pair in found if part(pair.earlier) is not part(pair.later)]:
        yield Finding(
            code="nearly_leaked",
            level=Level.WARNING,
            count=len(leaks),
            message="Texts that are nearly the same as one of another part: "
            f"{across((pair.earlier, pair.later) for pair in leaks)}.",
            advice="Keep such texts in one part: the figures of the other one are too good.",
            examples=_examples(leaks),
        )
    if torn := [pair for pair in found if pair.earlier.label != pair.later.label]:
        yield Finding(
            code="nearly_conflicting",
            level=level(len(torn), len(rows)),
            count=len(torn),
            message=f"{counted(len(torn), 'text')} nearly the same as another one, with another "
            "label.",
            advice="See whether the difference is worth another label; if not, mend one of them.",
            examples=_examples(torn),
        )
    if found:
        yield Finding(
            code="near_duplicates",
            level=level(len(found), len(rows)),
            count=len(found),
            message=f"{counted(len(found), 'text')} nearly the same as an earlier one.",
            advice="Parts that are drawn keep exact copies together, but not these: figures may be "
            "too good. Delete them, or name parts of your own.",
            examples=_examples(found),
        )


def _examples(found: Sequence[Near]) -> tuple[Example, ...]:
    return tuple(
        together(pair.earlier, pair.later, similarity=round(pair.similarity, 2))
        for pair in found[:EXAMPLES]
    )


def _signature(text: str) -> NDArray[np.uint32]:
    """(HASHES,), whatever the case of letters, the spaces and the signs between words."""
    folded = text.casefold()
    words = WORD.findall(folded) or [folded]
    sketch = RMinHash(num_perm=HASHES, seed=0)
    sketch.update([" ".join(pair) for pair in pairwise(words)] or words)
    return np.array(sketch.digest(), dtype=np.uint32)
