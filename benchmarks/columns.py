"""Aligned columns of text."""

from collections.abc import Sequence
from itertools import zip_longest


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Right-align each column to its longest word."""
    columns = zip_longest(*lines, fillvalue="")
    padded = [[word.rjust(max(map(len, column))) for word in column] for column in columns]
    return "\n".join("  ".join(words).rstrip() for words in zip(*padded, strict=True))
