"""One split of the data, tokenized."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_core.specs.data import Split


@dataclass(frozen=True)
class TokenizedSplit:
    """Token ids and labels of the texts of one split, in a fixed order."""

    split: Split
    ids: Sequence[NDArray[np.int32]]
    lengths: NDArray[np.int64]  # tokens of each text
    labels: NDArray[np.int64]
    pad: int  # id of the padding token

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, n: int) -> "TokenizedSplit":
        """The first n texts."""
        return TokenizedSplit(self.split, self.ids[:n], self.lengths[:n], self.labels[:n], self.pad)
