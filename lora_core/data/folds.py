"""Folds for cross-validation, drawn like the parts: by content, labels in balance.

All copies of a text are in one fold, so that none is judged by a model that has learned from it.
"""

from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from lora_core.data.records import Example
from lora_core.data.rows import Row
from lora_core.data.split import grouped
from lora_core.specs.method import FOLDS


def fold_of(examples: Sequence[Example], seed: int) -> NDArray[np.int64]:
    """The fold of each example, from 0 to `FOLDS` - 1. Another seed deals them anew."""
    rows = [Row(place, each.text, str(each.label)) for place, each in enumerate(examples)]
    folds = np.empty(len(examples), dtype=np.int64)
    dealt = count()  # goes on from label to label, so that all folds have about as many texts
    for copies_of_texts in grouped(rows, seed).values():
        for copies in copies_of_texts:
            fold = next(dealt) % FOLDS
            for row in copies.rows:
                folds[row.number] = fold
    return folds
