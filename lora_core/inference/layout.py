"""Where the texts of a batch lie: one after the other, those with the same adapter together."""

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Literal, TypeVar

from lora_core.inference.adapter import Adapter

T = TypeVar("T")
Rows = Literal["texts", "tokens"]  # what there is a row for


class Layout:
    """Made from the lengths of texts in tokens, and the adapter of each."""

    def __init__(self, lengths: Sequence[int], adapters: Sequence[Adapter]) -> None:
        self.order = sorted(range(len(lengths)), key=lambda i: id(adapters[i]))
        self.lengths = [lengths[i] for i in self.order]
        self.starts = list(accumulate(self.lengths[:-1], initial=0))
        ends = [*self.starts[1:], self.starts[-1] + self.lengths[-1]]
        self._texts: list[tuple[slice, Adapter]] = []
        self._tokens: list[tuple[slice, Adapter]] = []
        self.tokens = ends[-1]
        first = 0
        for adapter, same in groupby(adapters[i] for i in self.order):
            after = first + len(list(same))
            self._texts.append((slice(first, after), adapter))
            self._tokens.append((slice(self.starts[first], ends[after - 1]), adapter))
            first = after

    def groups(self, *, of: Rows) -> list[tuple[slice, Adapter]]:
        """Which rows belong to which adapter."""
        return self._texts if of == "texts" else self._tokens

    def back(self, rows: Sequence[T]) -> list[T]:
        """One of each text, in the order in which the texts were given."""
        found = dict(zip(self.order, rows, strict=True))
        return [found[i] for i in range(len(rows))]
