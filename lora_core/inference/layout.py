"""Where the texts of a batch lie: one after the other, those with the same adapter together."""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, TypeVar

from lora_core.encoders.unfused import rounded
from lora_core.inference.adapter import Adapter

T = TypeVar("T")
Rows = Literal["texts", "tokens"]  # what there is a row for


class Layout:
    """Made from the lengths of texts in tokens, and the adapter of each.

    The rows of each adapter, and those of all, are a multiple of `step`; some are for nobody. From
    the start of each text there are at least as many rows as its length rounded up.
    """

    def __init__(self, lengths: Sequence[int], adapters: Sequence[Adapter], step: int = 1) -> None:
        self.order = sorted(range(len(lengths)), key=lambda i: id(adapters[i]))
        self.lengths = [lengths[i] for i in self.order]
        self.starts: list[int] = []
        self._texts: list[tuple[slice, Adapter]] = []
        self._tokens: list[tuple[slice, Adapter]] = []
        row = first = 0
        for adapter, same in groupby(adapters[i] for i in self.order):
            after, begin = first + len(list(same)), row
            for length in self.lengths[first:after]:
                self.starts.append(row)
                row += length
            row = rounded(row, step)
            self._texts.append((slice(first, after), adapter))
            self._tokens.append((slice(begin, row), adapter))
            first = after
        self.rows = rounded(self.starts[-1] + rounded(self.lengths[-1], step), step)

    def groups(self, *, of: Rows) -> list[tuple[slice, Adapter]]:
        """Which rows belong to which adapter."""
        return self._texts if of == "texts" else self._tokens

    def back(self, rows: Sequence[T]) -> list[T]:
        """One of each text, in the order in which the texts were given."""
        found = dict(zip(self.order, rows, strict=True))
        return [found[i] for i in range(len(rows))]
